"""Commands whose exit code `git bisect run` reads."""

import traceback
from typing import Any

import click

from haast.errors import HaastError

UNMEASURED = 125


class Skipped(click.ClickException):
    """Nothing is known of this commit."""

    exit_code = UNMEASURED


class BisectableCommand(click.Command):
    """0 = good, 1 = bad; whatever else goes wrong, a bug of ours too, is 125: "skip this commit".

    1 and 2, which an error would end with otherwise, mean that the commit is bad.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            error.exit_code = UNMEASURED  # type: ignore[misc]  # of this one error
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (HaastError, OSError) as error:
            raise Skipped(str(error)) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # Python would end with 1
            traceback.print_exc()
            raise Skipped(repr(error)) from None

"""Commands whose exit code `git bisect run` reads."""

import sys
import traceback
from typing import Any, NoReturn

import click

from haast.errors import HaastError

UNMEASURED = 125


class BisectableCommand(click.Command):
    """0 = good, 1 = bad; whatever else goes wrong, a bug of ours too, is 125: "skip this commit".

    1 and 2, which an error would end with otherwise, mean that the commit is bad.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            _leave(error.format_message())

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _leave(error.format_message())
        except (HaastError, OSError) as error:
            _leave(str(error))
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:  # Python would end with 1
            traceback.print_exc()
            _leave(repr(error))


def _leave(message: str) -> NoReturn:
    click.echo(f"haast: error: {' '.join(message.split())}", err=True)
    sys.exit(UNMEASURED)

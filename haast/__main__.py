"""The `haast` program: `haast COMMAND --help` tells the rest."""

import sys
from difflib import get_close_matches
from importlib import import_module

import click

from haast import __version__
from haast.errors import HaastError

COMMANDS = {
    "baseline": "haast.cli.baseline",
    "bench": "haast.cli.bench",
    "chat": "haast.cli.chat",
    "coherence": "haast.cli.coherence",
    "deploy": "haast.cli.deploy",
    "doctor": "haast.cli.doctor",
    "generate": "haast.cli.generate",
    "journal": "haast.cli.journal",
    "make-checkpoint": "haast.cli.make_checkpoint",
    "ops": "haast.cli.ops",
    "plan": "haast.cli.plan",
    "profile": "haast.cli.profile",
    "serve": "haast.cli.serve",
}
USER_ERROR = 2
INTERRUPTED = 130


class _Commands(click.Group):
    """Imports a command when it is asked for, so that each pays only for what it uses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        if name not in COMMANDS:
            close = get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
            ctx.fail(f"no command '{name}'; {hint}")
        command = import_module(COMMANDS[name]).command
        assert isinstance(command, click.Command), command
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="haast")
def cli() -> None:
    """gpt-oss models on NVIDIA Hopper, with the MXFP4 weights exactly as published."""


def main(arguments: list[str] | None = None) -> None:
    """Run the program; a mistake of the user's is one line on standard error and exit code 2."""
    try:
        sys.exit(cli.main(arguments, prog_name="haast", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(USER_ERROR)
    except click.ClickException as error:
        _fail(error.format_message(), max(error.exit_code, USER_ERROR))
    except BrokenPipeError:
        sys.exit(INTERRUPTED)
    except (HaastError, OSError) as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        sys.exit(INTERRUPTED)


def _fail(message: str, code: int = USER_ERROR) -> None:
    click.echo(f"haast: error: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()

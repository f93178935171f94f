"""`haast chat`: talk to a model in the terminal, over any server with OpenAI's API."""

import sys
from contextlib import closing, suppress
from typing import Any

import click

from haast.cli.chat_client import ChatClient, ServerError
from haast.cli.generate import EFFORTS

HELP = """\
/reset    forget the conversation
/exit     leave (Ctrl-D too)
/help     this
A line that ends in a backslash goes on in the next one. Ctrl-C stops the answer."""
SENT = ("model", "reasoning_effort", "temperature", "top_p", "max_tokens", "seed")
"""Options that are fields of a request, where given"""


@click.command("chat", short_help="Talk to a model over any OpenAI-compatible server.")
@click.option(
    "--base-url",
    default="http://localhost:8000",
    show_default=True,
    help="The server, with or without /v1.",
)
@click.option("--model", help="Default: the first that the server names.")
@click.option("--api-key", envvar="OPENAI_API_KEY", help="Default: $OPENAI_API_KEY.")
@click.option("--system", help="Instructions before the conversation.")
@click.option("--reasoning-effort", type=click.Choice(EFFORTS, case_sensitive=False))
@click.option("--temperature", type=float)
@click.option("--top-p", type=float)
@click.option("--max-tokens", type=int, help="Longest answer, reasoning included.")
@click.option("--seed", type=int, help="Makes answers reproducible.")
@click.option("--no-reasoning", is_flag=True, help="Do not show the reasoning.")
def command(
    base_url: str, api_key: str | None, system: str | None, no_reasoning: bool, **options: Any
) -> None:
    """Talk to a model; /help tells what may be typed.

    What is piped in is one message: its answer alone is printed, and the program ends.
    """
    client = ChatClient(base_url, api_key)
    options["model"] = options["model"] or client.model()
    settings = {name: options[name] for name in SENT if options[name] is not None}
    talk = Talk(client, settings, system, shows_thoughts=not no_reasoning)
    if sys.stdin.isatty():
        click.secho(f"{options['model']} at {client.url}; /help tells more", dim=True, err=True)
        _converse(talk)
    else:
        text = sys.stdin.read().strip()
        if not text:
            raise click.UsageError("standard input is empty: what should the model answer?")
        talk.shows_thoughts = False
        talk.say(text)


class Talk:
    """A conversation, and the terminal that shows it."""

    def __init__(
        self,
        client: ChatClient,
        settings: dict[str, Any],
        system: str | None,
        shows_thoughts: bool,
    ) -> None:
        self.client = client
        self.settings = settings
        self.system = system
        self.shows_thoughts = shows_thoughts
        self.messages: list[dict[str, str]] = []
        self.reset()

    def reset(self) -> None:
        """Forget all but the instructions."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def say(self, text: str) -> None:
        """Send a message and print the answer as it comes.

        What came of the answer is remembered, also if the connection breaks or Ctrl-C stops it; if
        nothing came, the message is forgotten too. Raises ServerError.
        """
        self.messages.append({"role": "user", "content": text})
        said: list[str] = []
        try:
            self._print(said)
        except ServerError:
            if said:
                click.echo()
            raise
        finally:
            if said:
                self.messages.append({"role": "assistant", "content": "".join(said)})
            else:
                self.messages.pop()

    def _print(self, said: list[str]) -> None:
        """Print the answer and put its text into `said`."""
        printed = ""
        body = self.settings | {"messages": self.messages}
        with closing(self.client.stream(body)) as deltas:
            for kind, text in deltas:
                if kind == "end":
                    click.echo()
                    _note(text)
                    return
                if kind == "content":
                    said.append(text)
                elif not self.shows_thoughts:
                    continue
                if printed and printed != kind:
                    click.echo("\n")
                printed = kind
                shown = plain(text) if sys.stdout.isatty() else text
                click.echo(click.style(shown, dim=True) if kind == "reasoning" else shown, nl=False)
                sys.stdout.flush()


def _note(reason: str) -> None:
    """Why an answer ended, unless it is as usual."""
    if reason != "stop":
        why = "it reached the longest that is allowed" if reason == "length" else reason
        click.secho(f"(the answer was cut off: {why})", dim=True, err=True)


def plain(text: str) -> str:
    """A text without control characters, which could do anything to a terminal."""
    return "".join(c for c in text if c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f"))


def _converse(talk: Talk) -> None:
    """Read and answer until the input ends."""
    with suppress(ImportError):
        import readline  # noqa: F401  # makes `input` remember lines
    while True:
        try:
            text = _read()
        except KeyboardInterrupt:
            click.echo(err=True)
            continue
        if text is None or text in ("/exit", "/quit"):
            return
        if text == "/reset":
            talk.reset()
            click.secho("(forgotten)", dim=True, err=True)
        elif text.startswith("/") and " " not in text:
            click.secho(HELP if text == "/help" else f"no {text}; /help tells more", err=True)
        elif text:
            _answer(talk, text)


def _answer(talk: Talk, text: str) -> None:
    try:
        talk.say(text)
    except KeyboardInterrupt:
        click.secho("\n(stopped)", dim=True, err=True)
    except ServerError as error:
        click.echo(f"haast: error: {error}", err=True)
    click.echo(err=True)


def _read() -> str | None:
    """A message, which may be several lines; None at the end of the input."""
    lines: list[str] = []
    while True:
        try:
            line = input("... " if lines else "> ")
        except EOFError:
            click.echo(err=True)
            return None
        lines.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            return "\n".join(lines).strip()

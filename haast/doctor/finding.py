"""One line of the doctor's."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "bad", "note"]
"""note = one can do without"""


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do about it."""

    what: str
    state: State
    text: str
    remedy: str = ""
    """empty if it is as it should be"""


def ok(what: str, text: str) -> Finding:
    return Finding(what, "ok", text)


def bad(what: str, text: str, remedy: str) -> Finding:
    return Finding(what, "bad", text, remedy)


def note(what: str, text: str, remedy: str) -> Finding:
    return Finding(what, "note", text, remedy)

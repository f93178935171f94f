"""What the guard cannot do."""

from haast.errors import HaastError


class BaselineError(HaastError):
    """A document that is not there, is none, or belongs to another machine."""


class UnmeasuredError(HaastError):
    """A command of the known-good set that gave no result."""

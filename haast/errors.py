"""The one exception that means "the user can fix this": its text is a single clear line."""


class HaastError(ValueError):
    """Something the caller asked for or gave us is wrong; its text is one line that names it."""

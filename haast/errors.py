"""What means "the user can fix this": the text of each is a single clear line."""


class HaastError(ValueError):
    """Something the caller asked for or gave us is wrong; its text is one line that names it."""


class ConfigError(HaastError):
    """A configuration value is missing or not one we can run."""

"""Options that are given twice: the same value is fine, a different one names both."""

from collections.abc import Iterator

import click


class OnceCommand(click.Command):
    """A command whose options take one value each, under whichever of their names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises UsageError if one option is given two values."""
        first: dict[str, tuple[str, str]] = {}
        for key, name, value in self._given(args):
            other, before = first.setdefault(key, (name, value))
            if value != before:
                raise click.UsageError(f"{other} is {before} and {name} is {value}; give one", ctx)
        return super().parse_args(ctx, args)

    def _given(self, args: list[str]) -> Iterator[tuple[str, str, str]]:
        """Key, name as written and value of what the line says of options that take one value."""
        options = {
            name: option
            for option in self.params
            if isinstance(option, click.Option)
            for name in (*option.opts, *option.secondary_opts)
        }
        words = iter(args)
        for word in words:
            if word == "--":
                return
            name, has_value, value = word.partition("=")
            option = options.get(name)
            if option is None:
                continue
            if option.is_flag:
                value = "off" if name in option.secondary_opts else "on"
            elif not has_value:
                value = next(words, "")
            if not option.multiple:
                yield str(option.name), name, value

"""A server over a script, and a real one."""

from ..api.conftest import running

__all__ = ["running"]

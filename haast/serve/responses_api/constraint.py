"""What an answer is held to, beyond what the model would write anyway."""

from dataclasses import dataclass

from haast.serve.errors import ApiError, invalid
from haast.serve.responses_api.body import ResponseBody

TEXT = {"type": "text"}
_CHOICES = (None, "auto", "none")


@dataclass(frozen=True)
class Constraint:
    """may_call  whether the model may call functions, and is told of them"""

    may_call: bool = True


def constraint_of(body: ResponseBody) -> Constraint:
    """The one place that reads `text.format` and `tool_choice`.

    Raises ApiError 400 naming the field: an answer cannot be held to a format, or to a call, yet.
    """
    given = body.text.format if body.text else None
    if given not in (None, TEXT):
        raise _unsupported("text.format", f"text.format is not supported; allowed: {TEXT}")
    if body.tool_choice not in _CHOICES:
        message = "tool_choice cannot force a call; allowed: 'auto', 'none'"
        raise _unsupported("tool_choice", message)
    return Constraint(may_call=body.tool_choice != "none")


def _unsupported(param: str, message: str) -> ApiError:
    return invalid(param, message, code="unsupported_parameter")

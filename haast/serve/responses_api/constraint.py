"""What an answer must look like, beyond what the model would write anyway."""

from haast.serve.errors import ApiError, invalid
from haast.serve.responses_api.body import ResponseBody

_FORMAT = {"type": "text"}
_CHOICES = (None, "auto", "none")


def check_constraint(body: ResponseBody) -> None:
    """The one place that reads `text.format` and a `tool_choice` that forces or narrows calls.

    Raises ApiError 400 naming the field: an answer cannot be held to either yet.
    """
    given = body.text.format if body.text else None
    if given is not None and given != _FORMAT:
        raise _unsupported("text.format", f"text.format is not supported; allowed: {_FORMAT}")
    if body.tool_choice not in _CHOICES:
        message = "tool_choice cannot force a call; allowed: 'auto', 'none'"
        raise _unsupported("tool_choice", message)


def may_call(body: ResponseBody) -> bool:
    """Whether the model may call functions at all."""
    return body.tool_choice != "none"


def _unsupported(param: str, message: str) -> ApiError:
    return invalid(param, message, code="unsupported_parameter")

"""One response: what it says of itself, from its creation to its end."""

import time
from typing import Any

from haast.engine.request import SamplingParams
from haast.serve.answer import Piece
from haast.serve.errors import ApiError
from haast.serve.responses_api.body import ResponseBody
from haast.serve.responses_api.constraint import TEXT
from haast.serve.responses_api.items import Item
from haast.serve.responses_api.output import Event, Output

ENDED = frozenset({"completed", "incomplete", "failed", "cancelled"})


class Response:
    """A response while it comes about, and the events that tell of it, numbered from 0.

    head  the fields that stay as they are
    """

    def __init__(self, head: dict[str, Any], output: Output) -> None:
        self.id: str = head["id"]
        self._head = head
        self._output = output
        self._state: dict[str, Any] = {
            "status": "queued" if head["background"] else "in_progress",
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "usage": None,
        }
        self._num_events = 0

    @property
    def status(self) -> str:
        return str(self._state["status"])

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def items(self) -> list[Item]:
        """Output as it is now."""
        return self._output.items

    def document(self) -> dict[str, Any]:
        """What the API shows of it now."""
        return self._head | self._state | {"output": self.items}

    def created(self) -> list[Event]:
        """The first events; only the first call tells any."""
        if self._num_events:
            return []
        events = [self._shown("response.created")]
        if self.status == "queued":
            events.append(self._shown("response.queued"))
        return events

    def begun(self) -> list[Event]:
        """The engine has begun; tells of the creation if nothing did."""
        events = self.created()
        self._state["status"] = "in_progress"
        return [*events, self._shown("response.in_progress")]

    def take(self, pieces: list[Piece]) -> list[Event]:
        """What pieces of the answer add."""
        return self._numbered(self._output.take(pieces))

    def end(self, is_cut: bool, is_too_long: bool, usage: dict[str, Any]) -> list[Event]:
        """The answer has ended.

        is_cut       within an item
        is_too_long  before the model was done
        usage        as chat completions have it
        """
        events = self._numbered(self._output.close("incomplete" if is_cut else "completed"))
        status = "incomplete" if is_too_long else "completed"
        self._state |= {"status": status, "usage": _usage(usage)}
        if is_too_long:
            self._state["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self._state["completed_at"] = int(time.time())
        return [*events, self._shown(f"response.{status}")]

    def fail(self, error: ApiError) -> list[Event]:
        """The answer ends in an error."""
        events = [*self.created(), *self._stop("failed")]
        code = {429: "rate_limit_exceeded", 400: "invalid_prompt"}.get(error.status, "server_error")
        self._state["error"] = {"code": code, "message": error.message}
        return [*events, self._shown("response.failed")]

    def cancel(self) -> None:
        """Nobody wants the rest; no event tells it."""
        self._stop("cancelled")

    def _stop(self, status: str) -> list[Event]:
        self._state["status"] = status
        return self._numbered(self._output.close("incomplete"))

    def _shown(self, kind: str) -> Event:
        return self._numbered([{"type": kind, "response": self.document()}])[0]

    def _numbered(self, events: list[Event]) -> list[Event]:
        for event in events:
            event["sequence_number"] = self._num_events
            self._num_events += 1
        return events


def head_of(
    body: ResponseBody, params: SamplingParams, name: str, model: str, is_stored: bool
) -> dict[str, Any]:
    """What a response says of the request that it answers."""
    return {
        "id": name,
        "object": "response",
        "created_at": int(time.time()),
        "model": model,
        "background": bool(body.background),
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": body.effort, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": is_stored,
        "temperature": params.temperature,
        "text": {"format": (body.text and body.text.format) or TEXT, "verbosity": "medium"},
        "tool_choice": body.tool_choice or "auto",
        "tools": [_tool(tool) for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": params.top_p,
        "truncation": body.truncation or "disabled",
        "user": body.user,
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {"description": None, "parameters": None, "strict": None} | tool


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    """Usage of chat completions with the names of the Responses API."""
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": usage["prompt_tokens"],
        # the cache keeps what it has room for; nobody asks it to write
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": usage["completion_tokens_details"],
        "total_tokens": usage["total_tokens"],
    }

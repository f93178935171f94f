"""Prompts by a Jinja chat template, as `--chat-template FILE` asks."""

import json
import re
import traceback
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from haast.errors import HaastError
from haast.harmony.messages import ConversationError
from haast.harmony.seams import Seams
from haast.harmony.tokenizer import Tokenizer

# Our own template: the tokens of `render`, for tools that want Jinja.
TEMPLATE_PATH = Path(__file__).with_name("chat_template.jinja")
# What Jinja itself and the Python operations inside a template raise.
_RENDER_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_BOS = "<|startoftext|>"
_REASONING_KEYS = ("reasoning", "reasoning_content", "thinking")


class TemplateError(HaastError):
    """A chat template file that is missing or broken, or that fails on a conversation."""


class ChatTemplate:
    """A Jinja chat template with Hugging Face's conventions, and the vocabulary it writes in.

    Raises TemplateError, one line with the file and where known the line in it.
    """

    def __init__(self, path: str | Path, tokenizer: Tokenizer) -> None:
        self.path = Path(path)
        self._tokenizer = tokenizer
        self._source = _read_source(self.path)
        try:
            self._template = _environment().from_string(self._source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"{self.path}, line {error.lineno}: {error.message}") from None
        self._specials = {text: token_id for token_id, text in tokenizer.special_text.items()}
        longest_first = sorted(map(re.escape, self._specials), key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(longest_first)})")

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> list[int]:
        """Prompt ids of chat-completions messages; `variables` are further template variables.

        Special tokens that the template writes become special ids; the same text inside
        messages, tools or variables stays text. Text parts are joined to one string, tool
        arguments become objects, and reasoning is offered under each of its three names.
        Raises ConversationError if the template itself refuses with `raise_exception`.
        """
        if not isinstance(messages, list):
            raise ConversationError("messages must be a list")
        given = {
            "messages": [_prepared(index, message) for index, message in enumerate(messages)],
            "tools": tools,
            **variables,
        }
        seams = Seams(given, self._source, self._specials)
        text = self._render_text(
            seams.mark(given)
            | {
                "add_generation_prompt": add_generation_prompt,
                "bos_token": _BOS if _BOS in self._specials else "",
                "eos_token": self._tokenizer.special_text[self._tokenizer.special.return_],
            }
        )
        return self._encode(text, seams)

    def _render_text(self, variables: dict[str, Any]) -> str:
        try:
            return self._template.render(variables)
        except _Refusal as refusal:
            raise ConversationError(f"{self.path} refuses the conversation: {refusal}") from None
        except _RENDER_ERRORS as error:
            raise TemplateError(f"{self.path}{_where(error)}: {_one_line(error)}") from None

    def _encode(self, text: str, seams: Seams) -> list[int]:
        ids: list[int] = []
        for piece in self._split.split(text):
            if piece in self._specials:
                ids.append(self._specials[piece])
            else:
                ids += self._tokenizer.encode(seams.erase(piece))
        return ids


class _Refusal(jinja2.TemplateError):
    """The template called `raise_exception`."""


def _read_source(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return text
        source = json.loads(text)["chat_template"]
    except FileNotFoundError:
        raise TemplateError(f"no chat template {path}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise TemplateError(f"cannot read chat template {path}: {error}") from None
    except (KeyError, TypeError):
        raise TemplateError(f'{path} has no "chat_template"') from None
    if not isinstance(source, str):
        raise TemplateError(f'"chat_template" in {path} must be a string')
    return source


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise _Refusal(message)


def _prepared(index: int, message: object) -> dict[str, Any]:
    """A message as most templates expect it."""
    if not isinstance(message, Mapping):
        kind = type(message).__name__
        raise ConversationError(f"messages[{index}] is of type {kind}; allowed: an object")
    prepared = dict(message)
    content = prepared.get("content")
    if isinstance(content, list) and all(_is_text_part(part) for part in content):
        prepared["content"] = "".join(part["text"] for part in content)
    reasoning = next((prepared[key] for key in _REASONING_KEYS if prepared.get(key)), None)
    if reasoning is not None:
        prepared |= dict.fromkeys(_REASONING_KEYS, reasoning)
    if isinstance(prepared.get("tool_calls"), list):
        prepared["tool_calls"] = [_with_object(call) for call in prepared["tool_calls"]]
    return prepared


def _is_text_part(part: object) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)


def _with_object(call: Any) -> Any:
    """The call with JSON arguments parsed; templates write them with `tojson`."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
    return f", line {lines[-1]}" if lines else ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

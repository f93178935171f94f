"""What a conversation consists of: messages, tools, system settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from haast.errors import HaastError

Effort = Literal["low", "medium", "high"]


class ConversationError(HaastError):
    """Chat input that no conversation can be made of."""


@dataclass(frozen=True)
class Message:
    """One harmony message.

    role          system, developer, user, assistant or tool
    name          a tool's full name (`functions.x`), or what to call a user
    recipient     whom it is for: `functions.x` makes an assistant message a tool call
    content_type  format of the content, such as `json`
    """

    role: str
    content: str
    name: str | None = None
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None


@dataclass(frozen=True)
class Tool:
    """A function the model may call; `parameters` is a JSON schema, None for no arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ResponseFormat:
    """What the final answer has to look like, as the model is told.

    definition  a JSON schema, or whatever else says it
    """

    name: str
    definition: str
    description: str = ""

    @property
    def text(self) -> str:
        """What stands under `# Response Formats`."""
        notes = "".join(f"// {line}\n" for line in self.description.splitlines())
        return f"## {self.name}\n\n{notes}{self.definition}"


@dataclass(frozen=True)
class SystemConfig:
    """What the system message says.

    No date by default: it would change the prompt, and empty the prefix cache, every midnight.
    """

    model_identity: str = "You are ChatGPT, a large language model trained by OpenAI."
    knowledge_cutoff: str = "2024-06"
    conversation_date: str | None = None
    reasoning_effort: Effort = "medium"


@dataclass(frozen=True)
class Conversation:
    """Messages after the developer's instructions, tools and response format, which open every
    conversation.
    """

    messages: tuple[Message, ...]
    instructions: str | None = None
    tools: tuple[Tool, ...] = ()
    response_format: ResponseFormat | None = None

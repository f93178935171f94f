"""Conversation to token ids, token for token as openai-harmony renders it."""

from haast.harmony.messages import Conversation, Message, SystemConfig
from haast.harmony.tokenizer import Tokenizer
from haast.harmony.typescript import tools_section

_CHANNELS = (
    "# Valid channels: analysis, commentary, final. Channel must be included for every message."
)
_TOOL_CHANNEL = "\nCalls to these tools must go to the commentary channel: 'functions'."


def render(
    conversation: Conversation, tokenizer: Tokenizer, system: SystemConfig | None = None
) -> list[int]:
    """Prompt ids: the whole conversation, then `<|start|>assistant` for the model to go on."""
    ids = _render_history(conversation, tokenizer, system)
    return [*ids, tokenizer.special.start, *tokenizer.encode("assistant")]


def render_training(
    conversation: Conversation, tokenizer: Tokenizer, system: SystemConfig | None = None
) -> list[int]:
    """Ids of a conversation to learn: as in a prompt, but a closing answer ends in `<|return|>`."""
    ids = _render_history(conversation, tokenizer, system)
    if conversation.messages and _is_answer(conversation.messages[-1]):
        ids[-1] = tokenizer.special.return_
    return ids


def render_message(message: Message, tokenizer: Tokenizer) -> list[int]:
    """Ids of one message from `<|start|>` to `<|end|>`, or to `<|call|>` if it calls a tool."""
    special = tokenizer.special
    calls = message.role == "assistant" and message.recipient is not None
    return [
        special.start,
        *_render_header(message, tokenizer),
        special.message,
        *tokenizer.encode(message.content),
        special.call if calls else special.end,
    ]


def system_message(system: SystemConfig, has_tools: bool) -> Message:
    """The message every conversation starts with."""
    lines = [system.model_identity, f"Knowledge cutoff: {system.knowledge_cutoff}"]
    if system.conversation_date is not None:
        lines.append(f"Current date: {system.conversation_date}")
    lines += ["", f"Reasoning: {system.reasoning_effort}", ""]
    lines.append(_CHANNELS + (_TOOL_CHANNEL if has_tools else ""))
    return Message("system", "\n".join(lines))


def developer_message(conversation: Conversation) -> Message | None:
    """Instructions, tools and response format as one message; None if there are none."""
    sections = []
    if conversation.instructions:
        sections += ["# Instructions", conversation.instructions]
    if conversation.tools:
        sections.append(tools_section(conversation.tools))
    if conversation.response_format is not None:
        sections += ["# Response Formats", conversation.response_format.text]
    return Message("developer", "\n\n".join(sections)) if sections else None


def _render_history(
    conversation: Conversation, tokenizer: Tokenizer, system: SystemConfig | None
) -> list[int]:
    opening = [system_message(system or SystemConfig(), bool(conversation.tools))]
    developer = developer_message(conversation)
    if developer is not None:
        opening.append(developer)
    ids: list[int] = []
    for message in (*opening, *conversation.messages):
        ids += render_message(message, tokenizer)
    return ids


def _render_header(message: Message, tokenizer: Tokenizer) -> list[int]:
    """Author, recipient, channel, content type. Encoded piecewise, as openai-harmony does."""
    ids = tokenizer.encode(_author(message))
    if message.recipient not in (None, "all"):
        ids += tokenizer.encode(f" to={message.recipient}")
    if message.channel is not None:
        ids += [tokenizer.special.channel, *tokenizer.encode(message.channel)]
    if message.content_type is not None:
        ids += _render_content_type(message.content_type, tokenizer)
    return ids


def _render_content_type(content_type: str, tokenizer: Tokenizer) -> list[int]:
    marker = tokenizer.special_text[tokenizer.special.constrain]
    if not content_type.startswith(marker):
        return tokenizer.encode(f" {content_type}")
    rest = tokenizer.encode(content_type.removeprefix(marker))
    return [*tokenizer.encode(" "), tokenizer.special.constrain, *rest]


def _author(message: Message) -> str:
    if message.role == "tool":
        return message.name or "tool"
    return message.role if message.name is None else f"{message.role}:{message.name}"


def _is_answer(message: Message) -> bool:
    return message.role == "assistant" and message.channel == "final"

"""What users give -> prompt token ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from haast.harmony import ChatTemplate, SystemConfig, Tokenizer, from_chat, render
from haast.harmony.messages import ConversationError, Effort, ResponseFormat

Prompt = str | Sequence[int] | Sequence[dict[str, Any]]
"""One user message, token ids, or a chat as a list of messages"""


@dataclass(frozen=True)
class ChatOptions:
    """What goes into a conversation's frame besides its messages.

    Raises ConversationError if reasoning_effort is not low, medium or high.
    """

    reasoning_effort: Effort = "medium"
    conversation_date: str | None = None
    tools: Sequence[dict[str, Any]] | None = None
    response_format: ResponseFormat | None = None
    """told to the model; a chat template may do so with its variable of that name"""

    def __post_init__(self) -> None:
        if self.reasoning_effort not in get_args(Effort):
            raise ConversationError(
                f"reasoning_effort must be one of {', '.join(get_args(Effort))}; "
                f"got {self.reasoning_effort!r}"
            )


class PromptBuilder:
    """Renders prompts in the harmony format, or with a chat template where one was given."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template

    def ids(self, prompt: Prompt, options: ChatOptions) -> list[int]:
        """Token ids of a prompt that the model is to go on from.

        A string is one user message; token ids are taken as they are.
        Raises ConversationError for anything else.
        """
        if isinstance(prompt, str):
            return self._chat_ids([{"role": "user", "content": prompt}], options)
        if not isinstance(prompt, Sequence):
            raise ConversationError(
                f"a prompt must be a string, token ids or messages; got {type(prompt).__name__}"
            )
        ids = [item for item in prompt if isinstance(item, int)]
        return ids if ids and len(ids) == len(prompt) else self._chat_ids(list(prompt), options)

    def _chat_ids(self, messages: list[Any], options: ChatOptions) -> list[int]:
        tools = list(options.tools) if options.tools else None
        form = options.response_format
        conversation = replace(from_chat(messages, tools), response_format=form)
        if self.template is not None:
            return self.template.render(
                messages,
                tools,
                reasoning_effort=options.reasoning_effort,
                conversation_date=options.conversation_date,
                response_format=None if form is None else form.text,
            )
        system = SystemConfig(
            conversation_date=options.conversation_date,
            reasoning_effort=options.reasoning_effort,
        )
        return render(conversation, self.tokenizer, system)


def opened_message(prompt_ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """Ids of the assistant message that a prompt leaves open, after `<|start|>assistant`.

    Usually none; a prompt that ends in `<|channel|>final<|message|>The` forces how it begins.
    """
    start = max((i for i, t in enumerate(prompt_ids) if t == tokenizer.special.start), default=-1)
    header = tokenizer.encode("assistant")
    tail = list(prompt_ids[start + 1 :])
    is_open = start >= 0 and tail[: len(header)] == header
    return tail[len(header) :] if is_open else []

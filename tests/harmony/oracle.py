"""Our conversations in openai-harmony's types."""

import openai_harmony as oh

from haast.harmony import Conversation, Message, SystemConfig, Tool


def to_oracle(conversation: Conversation, system: SystemConfig) -> oh.Conversation:
    opening = [_system(system)]
    if conversation.instructions or conversation.tools:
        opening.append(_developer(conversation))
    return oh.Conversation.from_messages(opening + [_message(m) for m in conversation.messages])


def to_tool(tool: Tool) -> oh.ToolDescription:
    return oh.ToolDescription.new(tool.name, tool.description, tool.parameters)


def _system(system: SystemConfig) -> oh.Message:
    content = (
        oh.SystemContent.new()
        .with_model_identity(system.model_identity)
        .with_knowledge_cutoff(system.knowledge_cutoff)
        .with_reasoning_effort(oh.ReasoningEffort[system.reasoning_effort.upper()])
    )
    if system.conversation_date is not None:
        content = content.with_conversation_start_date(system.conversation_date)
    return oh.Message.from_role_and_content(oh.Role.SYSTEM, content)


def _developer(conversation: Conversation) -> oh.Message:
    content = oh.DeveloperContent.new()
    if conversation.instructions:
        content = content.with_instructions(conversation.instructions)
    if conversation.tools:
        content = content.with_function_tools([to_tool(tool) for tool in conversation.tools])
    return oh.Message.from_role_and_content(oh.Role.DEVELOPER, content)


def _message(message: Message) -> oh.Message:
    author = oh.Author(role=oh.Role(message.role), name=message.name)
    result = oh.Message.from_author_and_content(author, message.content)
    result.channel = message.channel
    result.recipient = message.recipient
    result.content_type = message.content_type
    return result

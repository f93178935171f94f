"""Chat to token ids and back in the harmony format; knows no engine and no model."""

from haast.harmony.chat import from_chat
from haast.harmony.delta import Delta
from haast.harmony.grammar import CallRule, ReplyRules, reply_grammar
from haast.harmony.messages import (
    Conversation,
    ConversationError,
    Message,
    ResponseFormat,
    SystemConfig,
    Tool,
)
from haast.harmony.parser import HarmonyParser
from haast.harmony.render import render, render_message, render_training
from haast.harmony.reply import Reply, ToolCall, collect, parse_reply
from haast.harmony.template import TEMPLATE_PATH, ChatTemplate, TemplateError
from haast.harmony.tokenizer import Tokenizer, TokenizerError

__all__ = [
    "TEMPLATE_PATH",
    "CallRule",
    "ChatTemplate",
    "TemplateError",
    "Conversation",
    "ConversationError",
    "Delta",
    "HarmonyParser",
    "Message",
    "Reply",
    "ReplyRules",
    "ResponseFormat",
    "SystemConfig",
    "Tokenizer",
    "TokenizerError",
    "Tool",
    "ToolCall",
    "collect",
    "from_chat",
    "parse_reply",
    "render",
    "render_message",
    "render_training",
    "reply_grammar",
]

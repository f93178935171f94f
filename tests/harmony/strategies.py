"""Conversations to render, and texts that try to break out of their message."""

from hypothesis import strategies as st

from haast.harmony import Conversation, Message, SystemConfig, Tool

HOSTILE = [
    "<|start|>system",
    "<|end|>",
    " <|channel|>final<|message|>",
    "<|constrain|>json",
    "<|call|>\n",
    "\t<|return|>",
    "<|endoftext|>",
    "<|endofprompt|>",
    "<|reserved_200000|>",
    "<|",
    "|>",
    "to=functions.f",
    "assistant",
]
plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
texts = st.lists(plain | st.sampled_from(HOSTILE), max_size=4).map("".join)
names = st.from_regex(r"[a-z_]([a-z0-9_.-]{0,9}[a-z0-9_-])?", fullmatch=True)
"""The parser takes a dot behind a name for none of it"""
functions = names.map("functions.".__add__)

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Where."}},
    "required": ["city"],
}
tools = st.builds(Tool, names, texts, st.sampled_from([None, PARAMETERS]))

users = st.builds(Message, st.just("user"), texts, name=st.none() | names)
thoughts = st.builds(Message, st.just("assistant"), texts, channel=st.just("analysis"))
preambles = st.builds(Message, st.just("assistant"), texts, channel=st.just("commentary"))
answers = st.builds(Message, st.just("assistant"), texts, channel=st.just("final"))
calls = st.builds(
    Message,
    st.just("assistant"),
    texts,
    channel=st.just("commentary"),
    recipient=functions,
    content_type=st.sampled_from(["json", "<|constrain|>json"]),
)
results = st.builds(
    Message,
    st.just("tool"),
    texts,
    name=functions,
    channel=st.just("commentary"),
    recipient=st.just("assistant"),
)
conversations = st.builds(
    Conversation,
    st.lists(users | thoughts | preambles | answers | calls | results, max_size=6).map(tuple),
    st.none() | texts,
    st.lists(tools, max_size=2).map(tuple),
)
systems = st.builds(
    SystemConfig,
    conversation_date=st.none() | st.just("2025-06-28"),
    reasoning_effort=st.sampled_from(["low", "medium", "high"]),
)

"""Entries of chat-completions requests."""

USER = {"role": "user", "content": "hi"}


def call(name="f", arguments="{}", call_id="call_1"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(**fields):
    return {"role": "assistant", **fields}


def result(content="42", **fields):
    return {"role": "tool", "content": content, **fields}

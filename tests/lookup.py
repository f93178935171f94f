"""The tool that haast-tiny knows."""

TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Look a word up in a dictionary.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string"}},
            "required": ["word"],
        },
    },
}

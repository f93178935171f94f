"""What each field of a request means and takes, beyond the type that pydantic knows."""

from haast.serve.openapi_answers import Schema

TOKEN_ID: Schema = {"$ref": "#/components/schemas/TokenId"}
_LEAST_INT, _MOST_INT = -(1 << 63), (1 << 64) - 1
_TEXT: Schema = {"type": "string", "minLength": 1}
_EFFORTS = ["low", "medium", "high", "minimal", "xhigh", "max"]
_PENALTY: Schema = {"minimum": -2, "maximum": 2, "default": 0}
TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens")
"""Fields that may be no larger than an answer can be"""
FLAG: Schema = {"type": ["boolean", "null"]}
STRICT: Schema = {
    **FLAG,
    "description": "true = arguments always follow `parameters`, of which nothing is left out.",
}
"""Of a tool"""


def answer_format(**parts: Schema) -> Schema:
    """A field that says what an answer has to be.

    parts  of one of type json_schema; all but flags are needed
    """
    plain: Schema = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": ["text", "json_object"]}},
    }
    of_schema: Schema = {
        "type": "object",
        "required": ["type", *(name for name, part in parts.items() if part != FLAG)],
        "properties": {"type": {"const": "json_schema"}, **parts},
    }
    return {
        "description": "The format that the answer must have.",
        "anyOf": [plain, of_schema],
    }


FIELDS: dict[str, Schema] = {
    "model": {"description": "A name that /v1/models tells. Default: the first."},
    # how tokens are drawn
    "temperature": {
        "description": "How much chance there is; 0 = always the likeliest token.",
        "minimum": 0,
        "default": 1,
    },
    "top_p": {
        "description": "Only the likeliest tokens up to this probability together.",
        "exclusiveMinimum": 0,
        "maximum": 1,
        "default": 1,
    },
    "top_k": {
        "description": "Only so many likeliest tokens; -1 or 0 = all.",
        "minimum": -1,
        "maximum": _MOST_INT,
        "default": -1,
    },
    "min_p": {
        "description": "No token less likely than this share of the likeliest.",
        "minimum": 0,
        "maximum": 1,
        "default": 0,
    },
    "presence_penalty": {"description": "Taken off tokens that the answer has.", **_PENALTY},
    "frequency_penalty": {
        "description": "Taken off tokens each time that the answer has them.",
        **_PENALTY,
    },
    "repetition_penalty": {
        "description": "Makes tokens of prompt and answer less likely where above 1.",
        "exclusiveMinimum": 0,
        "default": 1,
    },
    "logit_bias": {
        "description": "Token id -> what is added to its logit.",
        "propertyNames": {"pattern": "^(0|[1-9][0-9]*)$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    },
    "seed": {
        "description": "Makes the draws reproducible.",
        "minimum": _LEAST_INT,
        "maximum": _MOST_INT,
    },
    "n": {"description": "How many answers.", "minimum": 1, "maximum": 128, "default": 1},
    "allowed_token_ids": {"description": "No other tokens are drawn.", "items": TOKEN_ID},
    # when an answer ends
    "max_tokens": {
        "description": "Longest answer. Default: 16, or min_tokens if larger.",
        "minimum": 1,
    },
    "ChatBody.max_tokens": {
        "description": "Longest answer, reasoning included; older name of max_completion_tokens. "
        "Default: as long as fits.",
        "minimum": 1,
    },
    "max_completion_tokens": {
        "description": "Longest answer, reasoning included. Default: as long as fits.",
        "minimum": 1,
    },
    "min_tokens": {
        "description": "No stop token ends the answer before; at most its longest.",
        "minimum": 0,
        "default": 0,
    },
    "stop": {
        "description": "Texts that end the answer and are no part of it; never sought in "
        "reasoning.",
        "anyOf": [_TEXT, {"type": "array", "items": _TEXT}],
    },
    "stop_token_ids": {
        "description": "Tokens that end the answer besides the model's own.",
        "items": TOKEN_ID,
    },
    "ignore_eos": {"description": "Go on after the model's own stop tokens.", "default": False},
    "thinking_token_budget": {"description": "Tokens that the reasoning may take.", "minimum": 0},
    # what it may look like
    "response_format": answer_format(
        json_schema={"type": "object", "required": ["schema"], "properties": {"strict": FLAG}}
    ),
    "structured_outputs": {
        "description": "vLLM's way to ask for a format: json, regex, choice, grammar, json_object."
    },
    "guided_json": {"description": "vLLM's older way to ask for JSON of a schema."},
    "guided_regex": {
        "description": "vLLM's older way to ask for a regular expression.",
        "minLength": 1,
    },
    "guided_choice": {
        "description": "vLLM's older way to ask for one of some texts.",
        "minItems": 1,
    },
    "guided_grammar": {"description": "vLLM's older way to ask for a grammar.", "minLength": 1},
    # how it is served
    "priority": {
        "description": "Requests with a lower one run first.",
        "minimum": _LEAST_INT,
        "maximum": _MOST_INT,
        "default": 0,
    },
    "cache_salt": {"description": "Only requests with the same salt share cached prefixes."},
    "stream": {"description": "Send the answer as it grows.", "default": False},
    "stream_options": {"description": "Only with stream."},
    "include_usage": {
        "description": "Whether a last chunk without choices tells the usage.",
        "default": False,
    },
    "continuous_usage_stats": {
        "description": "With include_usage: every chunk tells the usage so far.",
        "default": False,
    },
    "logprobs": {
        "description": "Log-probability of each token, and of so many likeliest.",
        "minimum": 0,
        "maximum": 20,
    },
    "ChatBody.logprobs": {
        "description": "Log-probability of each token of the content.",
        "default": False,
    },
    "top_logprobs": {
        "description": "With logprobs: of so many likeliest tokens, too.",
        "minimum": 0,
        "maximum": 20,
        "default": 0,
    },
    # chats
    "messages": {
        "description": "The conversation so far.",
        "examples": [[{"role": "user", "content": "What is a bald eagle?"}]],
        "minItems": 1,
        "items": {"$ref": "#/components/schemas/Message"},
    },
    "tools": {
        "description": "Functions that the model may call.",
        "items": {"$ref": "#/components/schemas/Tool"},
    },
    "tool_choice": {
        "description": "none = call no function; required = call one; or which to call, or those "
        "that may be called.",
        "anyOf": [
            {"enum": ["auto", "none", "required"]},
            {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"enum": ["function", "allowed_tools"]}},
            },
        ],
        "default": "auto",
    },
    "reasoning_effort": {
        "description": "How much to think; minimal means low, xhigh and max mean high.",
        "enum": _EFFORTS,
        "default": "medium",
    },
    "TokenizeBody.reasoning_effort": {
        "description": "As in a chat.",
        "enum": _EFFORTS,
        "default": "medium",
    },
    "reasoning": {"description": "OpenRouter's way to say effort and whether to tell it."},
    "effort": {"description": "The same as reasoning_effort.", "enum": _EFFORTS},
    "exclude": {"description": "Do not send the reasoning.", "default": False},
    "include_reasoning": {"description": "Whether to send the reasoning.", "default": True},
    # plain completions
    "prompt": {
        "description": "A text or token ids, or a list of either for an answer to each. "
        "No text becomes a special token.",
        "examples": ["A bald eagle is"],
        "anyOf": [
            _TEXT,
            {"type": "array", "items": TOKEN_ID, "minItems": 1},
            {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1024},
            {
                "type": "array",
                "items": {"type": "array", "items": TOKEN_ID, "minItems": 1},
                "minItems": 1,
                "maxItems": 1024,
            },
        ],
    },
    "echo": {
        "description": "Begin each answer with its prompt; not with logprobs.",
        "default": False,
    },
    "skip_special_tokens": {
        "description": "Whether special tokens are left out of the text.",
        "default": True,
    },
    # tokens
    "TokenizeBody.prompt": {"description": "A text; or give messages."},
    "TokenizeBody.messages": {
        "description": "A chat, whose prompt is wanted; or give prompt.",
        "items": {"$ref": "#/components/schemas/Message"},
        "minItems": 1,
    },
    "return_token_strs": {"description": "Also tell each token's text.", "default": False},
    "tokens": {"description": "Token ids.", "items": TOKEN_ID, "examples": [[1, 2, 3]]},
}
"""Field, or Model.field where it differs there -> keywords for its schema; `enum` and `anyOf` stand
in place of the type"""

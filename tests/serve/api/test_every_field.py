"""Every field that OpenAI's client and vLLM's users send: honoured, refused or harmless.

A new version of the openai package shows here with the fields that are new in it.
"""

from typing import Any, get_type_hints

import pytest
from openai.types import completion_create_params
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionStreamOptionsParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat import completion_create_params as chat_create_params

from haast.serve import fields
from haast.serve.protocol import ChatBody, CompletionBody, StreamOptions

from .conftest import HELLO, Api, events
from .spoken import NEXT, SPECIAL, message, says

CHAT = get_type_hints(chat_create_params.CompletionCreateParamsStreaming)
COMPLETION = get_type_hints(completion_create_params.CompletionCreateParamsStreaming)
VLLM = """
    top_k min_p repetition_penalty min_tokens stop_token_ids ignore_eos priority cache_salt echo
    include_stop_str_in_output prompt_logprobs logprob_token_ids allowed_token_ids bad_words
    repetition_detection return_token_ids return_tokens_as_token_ids thinking_token_budget
    truncate_prompt_tokens skip_special_tokens spaces_between_special_tokens add_special_tokens
    use_beam_search length_penalty structured_outputs guided_json guided_regex guided_choice
    guided_grammar structural_tag logits_processors kv_transfer_params vllm_xargs request_id
""".split()
VLLM_CHAT = """
    include_reasoning reasoning continue_final_message add_generation_prompt documents
    chat_template chat_template_kwargs mm_processor_kwargs
""".split()
TOOL = {"type": "function", "function": {"name": "f"}}
EXAMPLES: dict[str, Any] = {
    "model": "gpt-5",
    "messages": [{"role": "user", "content": "Why?"}],
    "prompt": "Why?",
    "temperature": 0.25,
    "top_p": 0.5,
    "top_k": 7,
    "min_p": 0.25,
    "presence_penalty": 1,
    "frequency_penalty": 1,
    "repetition_penalty": 1.5,
    "logit_bias": {"5": 1},
    "seed": 3,
    "n": 2,
    "max_tokens": 9,
    "max_completion_tokens": 9,
    "min_tokens": 2,
    "stop": "two",
    "stop_token_ids": [5],
    "ignore_eos": True,
    "priority": 1,
    "cache_salt": "me",
    "stream": True,
    "stream_options": {"include_usage": True},
    "tools": [TOOL],
    "tool_choice": "none",
    "reasoning_effort": "high",
    "reasoning": {"exclude": True},
    "include_reasoning": False,
    "logprobs": True,
    "top_logprobs": 2,
    "echo": True,
    "skip_special_tokens": False,
    "response_format": {"type": "json_object"},
    "structured_outputs": {"choice": ["a", "b"]},
    "guided_json": {"type": "object"},
    "guided_regex": "a+",
    "guided_choice": ["a", "b"],
    "guided_grammar": 'root ::= "a"',
    "allowed_token_ids": [5],
    "service_tier": "flex",
    "thinking_token_budget": 5,
    "add_generation_prompt": False,
    "use_beam_search": True,
    "best_of": 2,
}
"""A value that asks for something"""
TOGETHER: dict[str, dict[str, Any]] = {
    "stream_options": {"stream": True},
    "tool_choice": {"tools": [TOOL]},
    "top_logprobs": {"logprobs": True},
    "thinking_token_budget": {"max_tokens": 50},
}
"""What a field takes besides itself to mean anything"""
WORDS = [*message("analysis", "Hm."), *NEXT, *message("final", "one two"), SPECIAL.return_]
SCRIPT = says(WORDS)


def told(path: str, **body) -> tuple[int, Any]:
    """Status, and all that a request leads to: what the engine is asked, what the client hears."""
    api = Api(SCRIPT)
    response = api.chat(**body) if path == "chat" else api.complete(**body)
    is_stream = response.headers["content-type"].startswith("text/event-stream")
    documents = events(response) if is_stream else [response.json()]
    for document in documents:
        for changing in ("id", "created"):
            document.pop(changing, None)
    return response.status_code, (is_stream, documents, api.engine.asked)


CASES = [("chat", name) for name in [*CHAT, *VLLM, *VLLM_CHAT]]
CASES += [("completions", name) for name in [*COMPLETION, *VLLM]]
REFUSED = {"chat": fields.REFUSED_IN_CHAT, "completions": fields.REFUSED_IN_COMPLETIONS}
HONOURED = {"chat": ChatBody.model_fields, "completions": CompletionBody.model_fields}


@pytest.mark.parametrize("path, name", CASES, ids=map("-".join, CASES))
def test_a_field_has_one_meaning(path, name, caplog):
    known = [name in HONOURED[path], name in REFUSED[path], name in fields.HARMLESS]
    assert sum(known) == 1, f"{name}: honoured, refused or harmless? {known}"
    others = TOGETHER.get(name, {})
    value = EXAMPLES.get(name, "something")
    if (path, name) == ("completions", "logprobs"):
        value = 2
    status, found = told(path, **others, **{name: value})
    if name in REFUSED[path]:
        assert status == 400 and found[1][0]["error"]["param"] == name
    elif name in fields.HARMLESS:
        assert (status, found) == told(path) and status == 200
    else:
        assert status == (404 if name == "model" else 200), found
        assert found != told(path, **others)[1], "it changes nothing"
    assert not caplog.records


def test_the_lists_are_those_of_the_package():
    assert {"messages", "stream", "store", "verbosity"} <= CHAT.keys()
    assert {"prompt", "stream", "best_of", "suffix"} <= COMPLETION.keys()
    assert len(CHAT) >= 35 and len(COMPLETION) >= 18


def test_options_of_a_stream():
    own = StreamOptions.model_fields.keys() - {"continuous_usage_stats"}
    assert get_type_hints(ChatCompletionStreamOptionsParam).keys() - own == {"include_obfuscation"}
    options = {"include_usage": True, "include_obfuscation": True}
    assert told("chat", stream=True, stream_options=options) == told(
        "chat", stream=True, stream_options={"include_usage": True}
    )


MESSAGES = {
    "system": ChatCompletionSystemMessageParam,
    "user": ChatCompletionUserMessageParam,
    "assistant": ChatCompletionAssistantMessageParam,
    "tool": ChatCompletionToolMessageParam,
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IN_MESSAGES = {"content": "two", "tool_calls": [CALL], "tool_call_id": "c2", "role": "developer"}
IGNORED_IN_MESSAGES = {("user", "name"), ("system", "name"), ("assistant", "name")}
CASES_IN_MESSAGES = [
    (role, name) for role, kind in MESSAGES.items() for name in get_type_hints(kind)
]


@pytest.mark.parametrize("role, name", CASES_IN_MESSAGES, ids=map("-".join, CASES_IN_MESSAGES))
def test_a_field_of_a_message(role, name):
    """Read, refused by name, or a name that harmony has no place for."""
    other = CALL | {"id": "c2", "function": {"name": "g", "arguments": "{}"}}
    called = {"role": "assistant", "tool_calls": [CALL, other]}
    own = {"role": role, "content": "one"} | ({"tool_call_id": "c"} if role == "tool" else {})
    changed = own | {name: IN_MESSAGES.get(name, "two")}

    def asked(entry):
        return told("chat", messages=[*HELLO, called, entry])

    status, found = asked(changed)
    if (role, name) in IGNORED_IN_MESSAGES:
        assert (status, found) == asked(own)
    elif status == 400:
        assert found[1][0]["error"]["param"] == f"messages[2].{name}"
        assert name not in ("content", "tool_calls", "tool_call_id")
    elif (role, name) != ("system", "role"):  # which is the developer's other name
        assert found != asked(own)[1]

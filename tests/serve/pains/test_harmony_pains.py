"""What users of gpt-oss servers suffer most, one test each: the format, reasoning and tools."""

import socket

import pytest

from haast.engine.request import SamplingParams
from haast.serve.service import Settings, make_service

from ...harmony.spell import spell
from ..api.conftest import HELLO, Api, events
from ..api.spoken import TOKENIZER, call, says, thought_and_said
from ..api.told import final, streamed
from ..fake_client import FakeClient

TOOL = {"type": "function", "function": {"name": "lookup", "description": "Look up."}}
THOUGHT = "<|channel|>analysis<|message|>Hm."


def hears(stream: str, *, at_once=1, end="stop", **body):
    """Message and finish reason of what a model writes like this; the API afterwards."""
    api = Api(says(spell(stream, TOKENIZER), at_once=at_once, end=end))
    response = api.chat(**body)
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    return choice["message"], choice["finish_reason"], api


@pytest.mark.parametrize(
    "stream, content",
    [
        (f"{THOUGHT}<|end|>4", ""),
        (f"{THOUGHT}<|channel|>final<|message|>4<|return|>", "4"),
        (f"{THOUGHT}<|end|><|start|><|start|>assistant<|channel|>final<|message|>4<|return|>", "4"),
        ("<|channel|>final<|message|>4<|return|>and more<|start|>", "4"),
        ("<|channel|>commentary?<|message|>4<|return|>", "4"),
        ("<|channel|><|channel|>final<|message|>4<|return|>", "4"),
        ("<|channel|>final <|constrain|>response<|message|>4<|return|>", "4"),
        (f"{THOUGHT}<|end|><|start|>assistant<|channel|>fin<|endoftext|>", ""),
        (f"{THOUGHT}<|end|><|start|>robot<|channel|>final<|message|>4<|return|>", "4"),
        ("4<|return|>", "4"),
    ],
)
def test_pain_01_header_errors_are_no_500(stream, content):
    message, _, api = hears(stream)
    assert message["content"] == content
    assert api.service.metrics.anomalies or stream.count("<|") == 4


def test_pain_02_no_analysis_and_no_markup_in_content():
    for stream in ("<|channel|>analysis to=x", THOUGHT, "analysisHm.", f"{THOUGHT}<|end|> So"):
        message, _, _ = hears(stream, end="length")
        assert message["content"] == ""
        thought = message.get("reasoning", "")
        assert "<|" not in thought and "analysis" not in thought


def test_pain_03_an_empty_answer_says_why():
    api = Api(says(spell(THOUGHT, TOKENIZER), end="length"))
    body = api.chat(max_tokens=5).json()
    (choice,) = body["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
    assert choice["message"]["reasoning"] == "Hm."
    usage = body["usage"]
    thought = len(TOKENIZER.encode("Hm."))
    assert usage["completion_tokens_details"]["reasoning_tokens"] == thought
    assert usage["completion_tokens"] == thought + 3


def test_pain_04_streamed_tool_calls():
    arguments = '{"word": "wombat"}'
    chunks = events(Api(says(call(arguments))).chat(stream=True, tools=[TOOL]))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    first, *rest = (d["tool_calls"][0] for d in deltas if "tool_calls" in d)
    assert first.keys() == {"index", "id", "type", "function"} and first["index"] == 0
    assert first["function"] == {"name": "lookup", "arguments": ""}
    assert "".join(d["function"]["arguments"] for d in rest) == arguments and len(rest) > 1
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "header",
    [
        " to=functions.lookup<|channel|>analysis json",
        "<|channel|>commentary to=lookup <|constrain|>json",
        "<|channel|>commentary to=functions.lookup<|channel|>analysis",
        "<|channel|>commentary to=functions.lookup",
    ],
)
@pytest.mark.parametrize("arguments", ['{"word": "a"}', "word: a", ""])
def test_pain_05_names_of_tools_are_clean_and_arguments_as_written(header, arguments):
    message, reason, _ = hears(f"{header}<|message|>{arguments}<|call|>")
    (made,) = message["tool_calls"]
    assert made["function"] == {"name": "lookup", "arguments": arguments}
    assert reason == "tool_calls"


def test_pain_06_a_result_that_the_model_makes_up_is_not_told():
    invented = "<|start|>functions.lookup to=assistant<|channel|>commentary<|message|>42<|end|>"
    message, reason, _ = hears(TOKENIZER.decode(call("{}")) + invented)
    assert reason == "tool_calls" and message["content"] is None
    assert [made["function"]["arguments"] for made in message["tool_calls"]] == ["{}"]
    assert "reasoning" not in message


@pytest.mark.parametrize("wish", [True, False])
def test_pain_07_parallel_tool_calls_are_accepted(wish):
    message, _, _ = hears(TOKENIZER.decode(call("{}")), tools=[TOOL], parallel_tool_calls=wish)
    assert len(message["tool_calls"]) == 1


def test_pain_08_tool_choice_none_shows_no_tools_and_lets_no_call_through():
    message, reason, api = hears(TOKENIZER.decode(call("{}")), tools=[TOOL], tool_choice="none")
    assert "tool_calls" not in message and reason == "stop"
    assert "lookup" not in TOKENIZER.decode(api.engine.asked[-1].prompt_ids)


def prompt(messages) -> str:
    api = Api()
    return TOKENIZER.decode(api.asked(messages=messages, tools=[TOOL]).prompt_ids)


def loop(**thought) -> list:
    function = {"name": "lookup", "arguments": "{}"}
    made = {"id": "c", "type": "function", "function": function}
    used = {"role": "assistant", "tool_calls": [made]} | thought
    return [*HELLO, used, {"role": "tool", "tool_call_id": "c", "content": "42"}]


def test_pain_10_reasoning_is_kept_in_a_tool_loop_and_dropped_after_it():
    assert "analysis<|message|>I look.<|end|>" in prompt(loop(reasoning="I look."))
    done = [*loop(reasoning="I look."), {"role": "assistant", "content": "42."}, *HELLO]
    assert "I look." not in prompt(done) and "<|call|>" in prompt(done)
    again = [*done, *loop(reasoning="I look again.")[1:]]
    assert "I look." not in prompt(again) and "I look again." in prompt(again)


def test_pain_11_reasoning_goes_out_by_its_name_and_comes_in_by_both():
    script = says(thought_and_said("Hm.", "Hi."))
    message = Api(script).chat().json()["choices"][0]["message"]
    assert message["reasoning"] == "Hm." and "reasoning_content" not in message
    both = Api(script, mirrors_reasoning=True).chat().json()["choices"][0]["message"]
    assert both["reasoning_content"] == both["reasoning"] == "Hm."
    assert prompt(loop(reasoning="I look.")) == prompt(loop(reasoning_content="I look."))


def test_pain_12_the_vocabulary_comes_from_the_checkpoint(monkeypatch):
    def refuse(*_arguments):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    service = make_service(FakeClient(lambda prompt, params: []), Settings(models=("m",)))
    assert service.tokenizer.decode(service.tokenizer.encode("Hello")) == "Hello"


def test_pain_13_a_chat_is_sampled_at_temperature_one_unless_it_says_otherwise():
    for effort in ("low", "medium", "high"):
        params = Api().asked(reasoning_effort=effort).params
        assert params == SamplingParams() and (params.temperature, params.top_p) == (1.0, 1.0)
    assert Api().asked(temperature=0).params.temperature == 0


@pytest.mark.parametrize("stream", [thought_and_said("Hm.", "é𝔊 Hi."), call('{"a": 1}')])
def test_pain_14_it_does_not_matter_how_many_tokens_come_at_once(stream):
    told = [hears(TOKENIZER.decode(stream), at_once=count)[:2] for count in (1, 2, 3, 7, 100)]
    for message, _ in told:
        for made in message.get("tool_calls", []):
            made.pop("id")
    assert all(one == told[0] for one in told)


def test_pain_24_events_of_a_response_are_nested_numbered_and_add_up():
    ids = [*thought_and_said("Hm.", "Hi there.")]
    told = streamed(Api(says(ids)))
    kinds = [event["type"].removeprefix("response.") for event in told]
    assert kinds[:2] == ["created", "in_progress"] and kinds[-1] == "completed"
    opened = [kind for kind in kinds if kind.endswith(".added")]
    closed = [k for k in kinds if k.endswith("item.done") or k.endswith("part.done")]
    assert len(opened) == len(closed) == 4, "an item and a part, of reasoning and of text"
    for name, text in (("reasoning_text", "Hm."), ("output_text", "Hi there.")):
        deltas = [e["delta"] for e in told if e["type"] == f"response.{name}.delta"]
        (done,) = (e["text"] for e in told if e["type"] == f"response.{name}.done")
        assert "".join(deltas) == done == text
    assert final(told)["status"] == "completed"

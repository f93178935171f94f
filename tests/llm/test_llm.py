"""The Python API: what goes in and what comes back."""

import json

import pytest
import torch

from haast import LLM, HaastError, SamplingParams
from haast.engine.request import RequestError
from haast.reply_stream import TextDelta
from haast.result import Result

from ..lookup import TOOL
from .conftest import ANSWER, EAGLE, greedy, num_held


def test_strings_ids_and_chats_in_one_call(llm, opened):
    chat = [{"role": "user", "content": "Hello"}]
    finished = []
    inputs = [EAGLE, opened, chat, "Hello", tuple(opened)]
    results = llm.generate(inputs, greedy(), progress=finished.append, reasoning_effort="low")
    assert [r.text for r in results[:2]] == [ANSWER, ANSWER]
    assert results[2] != results[3] and results[2].token_ids == results[3].token_ids
    assert results[2].text.startswith("Hello") and results[4].text == ANSWER
    assert list(results[1].prompt_token_ids) == opened
    assert finished == [1, 2, 3, 4, 5]
    assert [r.finish_reason for r in results] == ["stop"] * 5


def test_fields_of_a_result(llm):
    (result,) = llm.generate(EAGLE, greedy())
    special = llm.tokenizer.special
    assert result.text == ANSWER
    assert '"bald eagle"' in result.reasoning and "<|" not in result.reasoning
    assert result.token_ids[0] == special.channel and result.token_ids[-1] == special.return_
    assert result.prompt_token_ids[0] == special.start
    assert llm.tokenizer.decode(list(result.token_ids)).endswith(f"{ANSWER}<|return|>")
    assert (result.tool_calls, result.anomalies) == ((), {})
    timings = result.timings
    assert timings.generated_tokens == len(result.token_ids)
    assert timings.prompt_tokens == len(result.prompt_token_ids)
    assert 0 < timings.ttft_s < timings.total_s
    decode_s = timings.total_s - timings.ttft_s
    assert timings.decode_tokens_per_s == (timings.generated_tokens - 1) / decode_s
    assert timings.prompt_tokens_per_s == timings.prompt_tokens / timings.ttft_s


def test_a_stream_adds_up_to_the_result(llm):
    *deltas, result = llm.stream(EAGLE, greedy())
    assert isinstance(result, Result) and all(isinstance(d, TextDelta) for d in deltas)
    texts = {
        kind: "".join(delta.text for delta in deltas if delta.kind == kind)
        for kind in ("reasoning", "content")
    }
    assert texts == {"reasoning": result.reasoning, "content": result.text}
    kinds = [delta.kind for delta in deltas]
    assert kinds == sorted(kinds, reverse=True) and len(set(kinds)) == 2
    (whole,) = llm.generate(EAGLE, greedy())
    assert (whole.text, whole.token_ids) == (result.text, result.token_ids)


def test_closing_a_stream_cancels(llm):
    stream = llm.stream(EAGLE, greedy())
    assert next(stream).kind == "reasoning"
    assert num_held(llm) >= 2 and llm.engine.has_work
    with pytest.raises(RequestError, match="a stream of this LLM is still open"):
        llm.generate("Hello")
    stream.close()
    assert not llm.engine.has_work and num_held(llm) == 0


def test_a_seed_decides_whatever_else_is_in_the_batch(llm):
    def run(prompts, seed):
        params = SamplingParams(temperature=4.0, seed=seed, max_new_tokens=12)
        return llm.generate(prompts, params)[0].token_ids

    alone = run([EAGLE], seed=7)
    assert run([EAGLE], seed=7) == alone
    assert run([EAGLE, "Hello", "Define democracy."], seed=7) == alone
    assert run([EAGLE], seed=8) != alone
    assert run([EAGLE], seed=None) != run([EAGLE], seed=None)


def test_tools_are_called_and_their_results_used(llm):
    chat = [{"role": "user", "content": "What is a wombat?"}]
    (asked,) = llm.generate([chat], greedy(), tools=[TOOL])
    assert asked.finish_reason == "tool_calls" and asked.text == ""
    (call,) = asked.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("lookup", {"word": "wombat"})
    function = {"name": call.name, "arguments": call.arguments}
    meaning = json.dumps({"definition": "large eagle of North America that has a white head"})
    chat += [
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "1", "content": meaning},
    ]
    (answered,) = llm.generate([chat], greedy(), tools=[TOOL])
    assert (answered.finish_reason, answered.tool_calls) == ("stop", ())
    assert answered.text.startswith("A wombat is")
    assert "eagle of North America" in answered.text


def test_a_tool_call_is_streamed_as_its_own_kind(llm):
    *deltas, result = llm.stream("What is a wombat?", greedy(), tools=[TOOL])
    written = "".join(delta.text for delta in deltas if delta.kind == "tool_call")
    assert written == result.tool_calls[0].arguments
    assert {delta.kind for delta in deltas} == {"reasoning", "tool_call"}


def test_a_conversation_of_several_turns(llm):
    chat = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! Ask me what a word means."},
        {"role": "user", "content": EAGLE},
    ]
    (result,) = llm.generate([chat], greedy(), reasoning_effort="low")
    assert result.text == ANSWER and result.anomalies == {}


def test_a_prompt_may_open_the_answer(llm, opened):
    begun = [*opened, *llm.tokenizer.encode("A bald eagle")]
    (result,) = llm.generate([begun], greedy())
    assert result.text == ANSWER.removeprefix("A bald eagle")
    assert (result.reasoning, result.anomalies) == ("", {})


def test_score_predicts_what_generate_writes(llm, opened):
    (result,) = llm.generate([opened], greedy())
    logits = llm.score([*opened, *result.token_ids])
    assert logits.shape == (len(opened) + len(result.token_ids), 4096)
    assert logits.dtype == torch.float32
    assert tuple(logits[len(opened) - 1 : -1].argmax(-1).tolist()) == result.token_ids


@pytest.mark.parametrize(
    "inputs, chat, words",
    [
        ([[1, 5000]], {}, "token id 5000 is not in the vocabulary of 4096"),
        ([[1, -1]], {}, "token id -1 is not in the vocabulary of 4096"),
        (["Hello", "word " * 700], {}, "exceed max_length 640"),
        (["Hello", 5], {}, "a prompt must be a string, token ids or messages; got int"),
        ([[]], {}, "messages is empty"),
        (["Hello"], {"reasoning_effort": "extreme"}, "got 'extreme'"),
        (["Hello"], {"tools": [{"type": "function"}]}, "tools[0].function is missing"),
    ],
)
def test_refused_before_anything_runs(llm, monkeypatch, inputs, chat, words):
    monkeypatch.setattr(llm.engine, "enqueue", lambda requests: pytest.fail("it ran"))
    with pytest.raises(HaastError) as error:
        llm.generate(inputs, greedy(), **chat)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_unknown_keywords_are_named(llm):
    with pytest.raises(TypeError, match="max_tokens"):
        llm.generate("Hello", max_tokens=5)
    with pytest.raises(TypeError, match="max_model_len"):
        LLM(max_model_len=5)
    assert llm.generate([]) == []

"""The Python API: why an answer ends, and where it is cut."""

import pytest

from haast import LLM, SamplingParams

from .conftest import ANSWER, EAGLE, greedy


@pytest.mark.parametrize(
    "stop, text",
    [
        ("North America", "A bald eagle is a large eagle of "),
        (["zebra", "e of N", "white"], "A bald eagle is a large eagl"),
        (["A bald"], ""),
    ],
)
def test_stop_strings(llm, opened, stop, text):
    (result,) = llm.generate([opened], greedy(stop=stop))
    assert (result.text, result.finish_reason) == (text, "stop")
    assert len(result.token_ids) < 20
    *deltas, streamed = llm.stream(opened, greedy(stop=stop))
    assert "".join(delta.text for delta in deltas) == streamed.text == text


def test_a_launch_that_fails_beside_the_end_does_not_change_it(llm, opened, monkeypatch):
    """With two steps in flight, the failed one comes with, before or after the last token."""
    launch, launches = llm.engine.runner.launch, []

    def failing(step):
        launches.append(step)
        if len(launches) == fails_at:
            raise RuntimeError("device lost")
        return launch(step)

    monkeypatch.setattr(llm.engine.runner, "launch", failing)
    stop, fails_at = "North America", 0
    (whole,) = llm.generate([opened], greedy(stop=stop))
    ends, num_tokens = [], len(whole.token_ids)
    for fails_at in range(num_tokens - 1, num_tokens + 3):
        launches.clear()
        (result,) = llm.generate([opened], greedy(stop=stop))
        assert result.token_ids == whole.token_ids[: fails_at - 1]
        ends.append((result.finish_reason, result.error))
    failed = ("error", "RuntimeError: device lost")
    assert ends == [failed, failed, ("stop", None), ("stop", None)]
    assert (result.text, result.timings.generated_tokens) == (whole.text, num_tokens)


def test_stop_strings_are_not_sought_in_reasoning(llm):
    (result,) = llm.generate(EAGLE, greedy(stop=["user asks", "<|channel|>", "analysis", "final"]))
    assert "user asks" in result.reasoning
    assert (result.text, result.finish_reason) == (ANSWER, "stop")


def test_max_new_tokens_is_a_limit(llm):
    (result,) = llm.generate(EAGLE, greedy(max_new_tokens=6))
    assert (len(result.token_ids), result.finish_reason, result.text) == (6, "length", "")
    (one,) = llm.generate(EAGLE, greedy(max_new_tokens=1))
    assert one.timings.decode_tokens_per_s is None and len(one.token_ids) == 1


def test_without_a_limit_it_goes_on_to_max_length():
    llm = LLM(max_length=90)
    (result,) = llm.generate("Hello", SamplingParams(temperature=0, ignore_eos=True))
    assert len(result.prompt_token_ids) + len(result.token_ids) == 90
    assert result.finish_reason == "length"


def test_ignore_eos_goes_on_but_the_answer_is_the_same(llm, opened):
    (plain,) = llm.generate([opened], greedy())
    (further,) = llm.generate([opened], greedy(ignore_eos=True, max_new_tokens=40))
    assert (plain.finish_reason, further.finish_reason) == ("stop", "length")
    assert len(further.token_ids) == 40 > len(plain.token_ids)
    assert further.token_ids[: len(plain.token_ids)] == plain.token_ids
    assert further.text == plain.text == ANSWER and "after_stop" in further.anomalies

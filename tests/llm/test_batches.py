"""The Python API: several answers, batches, cached prefixes, log-probabilities, failures."""

import pytest
import torch

from haast import LLM, SamplingParams
from haast.engine.request import RequestError

from .conftest import ANSWER, EAGLE, greedy, num_held

QUESTIONS = [EAGLE, "Hello", "Define democracy.", "What is a piano?", "What is a wombat?"]


def texts(results):
    return [result.text for result in results]


def test_more_prompts_than_run_or_wait_at_a_time(llm):
    """Results are in the order of the prompts, whoever ends first."""
    small = LLM(max_batch_size=2, max_length=640, max_queue_size=2, max_batch_input_tokens=100)
    finished = []
    results = small.generate(QUESTIONS, greedy(), progress=finished.append)
    assert texts(results) == [llm.generate(one, greedy())[0].text for one in QUESTIONS]
    assert finished == [1, 2, 3, 4, 5] and num_held(small) == 0


def test_several_answers_to_a_prompt(llm):
    params = SamplingParams(temperature=4.0, seed=5, n=3, max_new_tokens=20)
    results = llm.generate(["Hello", EAGLE], params)
    assert len(results) == 6
    assert len({r.prompt_token_ids for r in results[:3]}) == 1
    assert results[2].prompt_token_ids != results[3].prompt_token_ids
    assert len({r.token_ids for r in results[:3]}) == 3
    again = llm.generate(EAGLE, params)
    assert [r.token_ids for r in again] == [r.token_ids for r in results[3:]]
    assert texts(llm.generate(EAGLE, greedy(n=2))) == [ANSWER, ANSWER]


def test_a_stream_has_one_answer(llm):
    with pytest.raises(RequestError, match="^a stream is of one answer; n must be 1, got 2$"):
        next(llm.stream(EAGLE, greedy(n=2)))


def test_cached_tokens(llm):
    """Whole pages of a prompt that was there before, its last token excepted."""
    prompt = [*range(100, 300)]
    first, again = (llm.generate([prompt], greedy(max_new_tokens=5))[0] for _ in range(2))
    assert (first.cached_tokens, again.cached_tokens) == (0, 128)
    assert first.token_ids == again.token_ids


def test_logprobs_are_those_of_the_score(llm):
    params = SamplingParams(temperature=2.0, seed=1, max_new_tokens=12, logprobs=3)
    with_logprobs, without = llm.generate([EAGLE], params) + llm.generate("Hello", greedy())
    assert without.logprobs == ()
    prompt, tokens = with_logprobs.prompt_token_ids, with_logprobs.token_ids
    logits = llm.score([*prompt, *tokens])[len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)
    assert len(with_logprobs.logprobs) == len(tokens) == 12
    for row, token_id, given in zip(expected, tokens, with_logprobs.logprobs, strict=True):
        assert given.logprob == pytest.approx(float(row[token_id]), abs=0.02)  # bf16 hidden states
        values = torch.tensor([value for _, value in given.top])
        torch.testing.assert_close(values, row.topk(3).values, atol=0.02, rtol=0)


def test_a_failing_step_is_told_in_the_result(llm, monkeypatch):
    forward, calls = llm._loaded.model.forward, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise RuntimeError("device lost")
        return forward(*arguments)

    monkeypatch.setattr(llm._loaded.model, "forward", failing)
    finished = []
    results = llm.generate([EAGLE, "Hello"], greedy(), progress=finished.append)
    assert [r.finish_reason for r in results] == ["error", "error"]
    assert [r.error for r in results] == ["RuntimeError: device lost"] * 2
    assert [len(r.token_ids) for r in results] == [4, 4] and finished == [1, 2]
    (after,) = llm.generate(EAGLE, greedy())
    assert (after.text, after.error) == (ANSWER, None)


def test_an_interrupt_leaves_nothing_behind(llm, monkeypatch):
    step, calls = llm.engine.step, []

    def interrupted():
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(llm.engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.generate([EAGLE, "Hello"], greedy())
    assert not llm.engine.has_work and num_held(llm) == 0

"""The simulator, with steps that take whole seconds."""

from dataclasses import dataclass, field

import pytest

from haast.capacity.choices import Load, most_per_s, percentile, under
from haast.capacity.simulate import SERVER_S, Limits, Replica, Request

LIMITS = Limits(batch=2, step_tokens=100, kv_tokens=1000)


@dataclass
class Steps:
    """One second each; remembers what was asked."""

    asked: list[tuple] = field(default_factory=list)

    def step_s(self, batch, context, tokens, offset):
        self.asked.append((batch, context, tokens, offset))
        return 1.0


def run(requests, limits=LIMITS, concurrency=None):
    steps = Steps()
    replica = Replica(steps, limits)
    replica.run(requests, concurrency)
    return steps.asked, replica.ended


def test_one_request():
    asked, (request,) = run([Request(5.0, 10, 3)])
    assert asked == [(0, 0.0, 10, 5.0), (1, 11.0, 0, 0.0), (1, 12.0, 0, 0.0)]
    assert request.ttft_s == pytest.approx(1 + SERVER_S)
    assert (request.tpot_s, request.end_s) == pytest.approx((1, 8 + SERVER_S))


def test_a_long_prompt_is_read_in_chunks_beside_decodes():
    asked, _ = run([Request(0.0, 10, 9), Request(0.5, 250, 1)])
    assert asked[0] == (0, 0.0, 10, 5.0)
    assert asked[2:6] == [
        (1, 12.0, 99, 49.5),
        (1, 13.0, 99, 99 + 49.5),
        (1, 14.0, 52, 198 + 26.0),
        (1, 15.0, 0, 0.0),
    ], "what came during the first step waits for the second, which is launched already"


def test_prompts_share_a_step():
    asked, ended = run([Request(0.0, 60, 1), Request(0.0, 60, 1)])
    assert asked == [(0, 0.0, 100, (60 * 30 + 40 * 20) / 100), (0, 0.0, 20, 50.0)]
    assert [request.first_s for request in ended] == pytest.approx([1 + SERVER_S, 2 + SERVER_S])


def test_a_batch_is_full():
    _, ended = run([Request(0.0, 10, 2), Request(0.0, 10, 2), Request(0.0, 10, 2)])
    assert [round(request.end_s) for request in ended] == [2, 2, 4]


def test_memory_is_full():
    tight = Limits(batch=2, step_tokens=100, kv_tokens=23)
    _, ended = run([Request(0.0, 10, 2), Request(0.0, 10, 2)], tight)
    assert [round(request.end_s) for request in ended] == [2, 4]


def test_so_many_at_a_time():
    """One at a time waits for nothing; whoever comes in a step's last moment waits for a step."""
    asked, ended = run([Request(0.0, 10, 2) for _ in range(3)], concurrency=1)
    assert len(asked) == 6
    assert [request.ttft_s for request in ended] == pytest.approx([1 + SERVER_S] * 3)


def test_the_most_requests_a_second():
    """Two decode while two wait: a second for the prompts, two for the tokens after the first."""
    assert most_per_s(Steps(), LIMITS, Load(0.0, 10, 3)) == pytest.approx(2 / 3, rel=0.2)


def test_latency_grows_with_the_load_and_is_the_same_for_a_seed():
    limits = Limits(batch=64, step_tokens=8192, kv_tokens=10**6)
    told = [under(Load(rate, 10, 20, 1), 2, lambda: Replica(Steps(), limits)) for rate in (1, 5)]
    assert told[0] == under(Load(1, 10, 20, 1), 2, lambda: Replica(Steps(), limits))
    assert told[0] != under(Load(1, 10, 20, 2), 2, lambda: Replica(Steps(), limits))
    assert 1 <= told[0].ttft_p50_s <= told[0].ttft_p99_s < told[1].ttft_p99_s
    assert told[0].tpot_p99_s == pytest.approx(1)


@pytest.mark.parametrize("percent, value", [(50, 5), (99, 10), (1, 1), (100, 10)])
def test_percentiles(percent, value):
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == value

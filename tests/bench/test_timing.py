"""Statistics of replays, and how long graphs and rotations must be."""

import pytest
import torch

from haast.bench.timing import (
    MAX_LAUNCHES,
    MIN_REPLAY_US,
    Timing,
    rounds_for,
    sets_past_l2,
    summarise,
    time_together,
)


def test_summarise_divides_by_calls_and_orders():
    replays = [1000.0 + 10 * i for i in range(11)]
    assert summarise(replays[::-1], 10) == Timing(105.0, 101.0, 109.0, 10, 11)


def test_percentiles_are_interpolated_between_replays():
    assert summarise([10.0, 20.0], 1) == Timing(15.0, 11.0, 19.0, 1, 2)
    assert summarise([30.0], 3) == Timing(10.0, 10.0, 10.0, 3, 1)


def test_one_slow_replay_moves_no_median():
    assert summarise([5.0] * 20 + [5000.0], 1).median_us == 5.0


@pytest.mark.parametrize(
    "turn_us, calls, rounds",
    [
        (MIN_REPLAY_US, 1, 1),
        (MIN_REPLAY_US + 1, 7, 1),
        (MIN_REPLAY_US / 2, 1, 2),
        (100.0, 11, 15),
        (700.0, 2, 3),
        (1.0, 1, 1500),
        (0.0, 1, MAX_LAUNCHES),
        (1.0, MAX_LAUNCHES + 1, 1),
    ],
)
def test_rounds(turn_us, calls, rounds):
    assert rounds_for(turn_us, calls) == rounds


@pytest.mark.parametrize("nbytes", [1, 17_625_600, 50 << 20, 150 << 20, 151 << 20, 1 << 40])
def test_sets_exceed_three_times_the_l2(nbytes):
    l2 = 50 << 20
    sets = sets_past_l2(nbytes, l2)
    assert sets * nbytes > 3 * l2 and (sets == 1 or (sets - 1) * nbytes <= 3 * l2)


@pytest.mark.usefixtures("hopper_only")
def test_on_a_gpu_twice_the_bytes_take_twice_as_long():
    small = [torch.empty(64 << 20, dtype=torch.uint8, device="cuda") for _ in range(4)]
    large = [torch.empty(128 << 20, dtype=torch.uint8, device="cuda") for _ in range(4)]
    variants = {
        "small": [x.zero_ for x in small],
        "large": [x.zero_ for x in large],
        "half a turn": [x.zero_ for x in small[:2]],
    }
    timings, card = time_together(variants, 3, 20)
    assert timings["large"].median_us == pytest.approx(2 * timings["small"].median_us, rel=0.15)
    assert timings["half a turn"].median_us == pytest.approx(timings["small"].median_us, rel=0.1)
    for timing in timings.values():
        assert timing.replays == 20 and timing.p10_us <= timing.median_us <= timing.p90_us
        assert timing.median_us * timing.calls > 0.8 * MIN_REPLAY_US
    assert card.driver is None or card.sm_mhz > 0

"""The persistent kernel on a card, beside the same step op by op and the kernel's twin."""

import pytest
import torch

from haast.ops import DecodeStep
from haast.ops.decode_step import twin
from haast.ops.decode_step.cuda_persistent import MOST_STAMPED, PHASES

from .gpu_cases import hopper  # noqa: F401 (a fixture)
from .one_request import OneRequest

pytestmark = pytest.mark.usefixtures("hopper")


NEAR = 0.3
"""Of logits whose sums were taken in another order: an expert may be another one at a near-tie"""


def distance(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


@pytest.mark.parametrize("length", [1, 2, 16, 17, 33, 128, 129, 200, 1000, 3000, 4000])
def test_a_step_is_what_the_ops_compute(length):
    one = OneRequest(length, "gpu")
    expected = one.op_by_op()
    caches = [(k.clone(), v.clone()) for k, v in one.kv.layers]
    one.forget_newest()
    logits = DecodeStep(one.network)(one.inputs)
    assert distance(logits, expected) < NEAR
    best, second = expected[0].float().topk(2).values
    assert logits.argmax() == expected.argmax() or best - second < 0.5
    for pair, before in zip(one.kv.layers, caches, strict=True):
        for now, then in zip(pair, before, strict=True):
            torch.testing.assert_close(now, then, atol=0.5, rtol=0.1, equal_nan=True)


def test_its_hidden_states_have_the_same_logits():
    one = OneRequest(70, "gpu")
    step = DecodeStep(one.network)
    logits = one.model.logits(step.hidden(one.inputs))
    assert distance(logits, step(one.inputs)) < 0.003


def test_it_computes_what_its_twin_does():
    one, other = OneRequest(150, "gpu"), OneRequest(150, "cpu")
    logits = DecodeStep(one.network)(one.inputs)
    assert distance(logits.cpu(), twin.decode_step(other.network, other.inputs, 132)) < NEAR


def test_replays_give_the_same_bits():
    """A word taken before it is written, or after it is overwritten, would show sooner or later."""
    one = OneRequest(300, "gpu")
    step = DecodeStep(one.network)
    expected = step(one.inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step(one.inputs)
    different = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(5000):
        logits.zero_()
        graph.replay()
        different += (logits != expected).any()
    assert different.item() == 0


def test_a_slot_of_nowhere_is_not_written():
    one = OneRequest(40, "gpu")
    one.inputs.slot.fill_(-1)
    one.inputs.window_slot.fill_(-1)
    one.forget_newest()
    before = [tensor.clone() for pair in one.kv.layers for tensor in pair]
    assert not DecodeStep(one.network)(one.inputs).isnan().any()
    after = [tensor for pair in one.kv.layers for tensor in pair]
    for now, then in zip(after, before, strict=True):
        assert torch.equal(now.nan_to_num(7), then.nan_to_num(7))


def test_stamps_are_in_order():
    one = OneRequest(40, "gpu")
    step = DecodeStep(one.network)
    stamps = step.stamped(one.inputs, has_head=True)
    ctas = torch.cuda.get_device_properties(0).multi_processor_count
    assert stamps.shape == (ctas, MOST_STAMPED, len(PHASES))
    own = stamps[:, : len(one.network.layers)].flatten(1)
    own = own[:, (own > 0).all(0)]
    assert own.shape[1] >= 6 * len(one.network.layers)
    assert (own[:, 1:] >= own[:, :-1]).all()
    last = stamps[:, len(one.network.layers)]
    assert (last[:, 1] >= last[:, 0]).all() and not last[:, 2:].any()
    headless = step.stamped(one.inputs, has_head=False)[:, len(one.network.layers)]
    assert headless[:, 0].all() and not headless[:, 1:].any()

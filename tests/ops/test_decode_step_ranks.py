"""A decode step that several ranks compute together: what the kernel's twin adds up, and that no
word of the kernel is overwritten before it is read, however ranks and CTAs run ahead."""

from dataclasses import fields, replace

import pytest
import torch

from haast.model.parameters import EXPERT_LAYOUTS
from haast.ops.decode_step import DecodeStep, StepRanks, tasks, twin
from haast.ops.decode_step.network import StepLayer, inbox_words, why_not
from haast.ops.decode_step.tasks import Sizes

from . import peers
from .one_request import OneRequest

NUM_CTAS = 132


@pytest.fixture(scope="module")
def one():
    return OneRequest(150, "cpu")


def shares(one, size):
    return [one.share(size, rank) for rank in range(size)]


def of_ranks(one, networks):
    """Logits [1, V]; the twin asserts that all ranks have the same sums."""
    parts = twin.decode_step_of_ranks(networks, one.inputs, NUM_CTAS)
    assert len({part.shape[1] for part in parts}) == 1
    return torch.cat(parts, 1)


def in_fp32(network):
    """With all that is bf16 in fp32, so that nothing hides in roundings."""

    def cast(of, names):
        values = {name: getattr(of, name) for name in names}
        return replace(of, **{n: v.float() for n, v in values.items() if is_bf16(v)})

    def is_bf16(value):
        return isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16

    names = [field.name for field in fields(StepLayer)]
    layers = tuple(cast(layer, names) for layer in network.layers)
    return replace(cast(network, ("embedding", "norm", "head")), layers=layers)


@pytest.mark.parametrize("length", [1, 70, 200])
def test_two_ranks_compute_what_one_does(length):
    """96 of the intermediate axis are a block and a half."""
    one = OneRequest(length, "cpu")
    expected = twin.decode_step(in_fp32(one.network), one.inputs, NUM_CTAS)
    logits = of_ranks(one, [in_fp32(network) for network in shares(one, 2)])
    assert expected.std() > 0.5 and (logits - expected).abs().max() < 1e-3


def test_they_are_within_bf16_rounding_of_one(one):
    exact = twin.decode_step(in_fp32(one.network), one.inputs, NUM_CTAS)
    logits = of_ranks(one, shares(one, 2))
    assert logits.dtype == torch.bfloat16 and logits.argmax() == exact.argmax()
    for expected in (exact, one.op_by_op()):
        assert (logits.float() - expected.float()).norm() < 0.01 * exact.norm()


def test_biases_of_sums_are_added_once(one):
    """Those of o and of down are rank 0's; a second time would show."""
    networks = shares(one, 2)
    right = of_ranks(one, networks)
    whole = one.network.layers[0]
    layers = [replace(networks[1].layers[0], out_bias=whole.out_bias), *networks[1].layers[1:]]
    networks[1] = replace(networks[1], layers=tuple(layers))
    twice = of_ranks(one, networks)
    assert whole.out_bias.any() and (twice - right).float().norm() > 0.02 * right.float().norm()


def test_a_share_of_experts_fills_up_its_last_block(one):
    """As the kernel's bulk copies find it, of 16 rows by 64 columns."""
    down = one.share(2, 0).layers[0].down_weight
    swizzled = down.swizzled(EXPERT_LAYOUTS["down_weight"])
    assert down.shape[-1] == 96 and swizzled.storage.shape[-2:] == (2, 544)
    assert torch.equal(swizzled.dequantize(torch.float32), down.dequantize(torch.float32))
    padding = swizzled.storage[..., 1, :512].unflatten(-1, (32, 4, 4))[..., 2:, :]
    assert not padding.any(), "codes of columns 96 to 127, of the last two of four k16 steps"


def test_of_two_the_own_terms_come_first_to_no_effect():
    terms = [torch.randn(4, 256).bfloat16() for _ in range(2)]
    first, second = (twin.sum_of_experts(terms, rank) for rank in range(2))
    assert torch.equal(first, second)
    by_choice = torch.stack(terms).float().sum((0, 1))
    torch.testing.assert_close(first.float(), by_choice, atol=0.03, rtol=0.01)


@pytest.mark.parametrize("size", [4, 8])
def test_more_ranks_add_up_in_one_order(size):
    terms = [torch.randn(4, 256).bfloat16() for _ in range(size)]
    sums = {tuple(twin.sum_of_experts(terms, rank).tolist()) for rank in range(size)}
    assert len(sums) == 1
    parts = [each[0] for each in terms]
    expected = torch.stack(parts).float().sum(0)
    torch.testing.assert_close(twin.sum_of_attention(parts).float(), expected, atol=0.03, rtol=0.01)


def share_sizes(num_experts, size, intermediate, vocab=201_088):
    return Sizes(2880, 64 // size, 8 // size, intermediate, num_experts, vocab // size)


@pytest.mark.parametrize("num_experts", [32, 128])
@pytest.mark.parametrize("size, inner", [(2, 1440), (4, 736), (4, 704), (8, 384), (8, 352)])
def test_shares_of_the_published_models(num_experts, size, inner):
    sizes = share_sizes(num_experts, size, inner)
    assert why_not(sizes, (128, None), 4, NUM_CTAS, size) is None
    up = [len(tasks.up_units(sizes, cta, NUM_CTAS)) for cta in range(NUM_CTAS)]
    assert sum(up) == 4 * 2 * inner // 16 and max(up) - min(up) <= 1


@pytest.mark.parametrize(
    "sizes, size, says",
    [
        (share_sizes(32, 2, 1440), 3, "takes (1, 2, 4, 8) ranks, got 3"),
        (share_sizes(32, 2, 1600), 2, "of a rank of a multiple of 32 up to 1536, got 1600"),
        (share_sizes(32, 2, 1430), 2, "of a rank of a multiple of 32 up to 1536, got 1430"),
        (share_sizes(32, 2, 1440, vocab=262_146), 2, "up to 262144 tokens in all, got 262146"),
        (share_sizes(32, 1, 1440, vocab=2), 2, "up to 48 query heads of a rank, got 64"),
        (share_sizes(32, 1, 1440), 1, "takes an intermediate size of a multiple of 64 up to 2880"),
    ],
)
def test_which_shares(sizes, size, says):
    assert says in why_not(sizes, (128, None), 4, NUM_CTAS, size)


def test_the_inbox_has_room_for_all_parts():
    """Two of o from each rank, one of down for each of four choices; a token; who has done."""
    assert inbox_words(2, 2880) == 2 * 2 * 2880 + 2 * 4 * 2880 + 2 + 2 * 160


# ---- who may overwrite what


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_no_part_is_overwritten_before_it_is_read(num_ranks, seed):
    peers.Run(num_ranks, seed).finish()


def test_a_single_buffer_of_o_would_be_overwritten():
    """By a rank that runs ahead of a CTA without tiles; so the model can tell."""
    with pytest.raises(peers.Overwritten, match="middle"):
        for seed in range(50):
            peers.Run(2, seed, buffers=1).finish()


def test_a_tag_of_no_step_would_not_tell_that_logits_are_there():
    """In the first step it is what words are before anything is written."""
    with pytest.raises(peers.Missing, match="after tag 3"):
        for seed in range(50):
            peers.Run(2, seed, done_after=0).finish()


# ---- where logits go


def test_each_rank_has_its_place_among_all_logits(one, monkeypatch):
    """Rank 0's memory is longer, for a larger vocabulary."""
    memory = torch.zeros(one.model.config.vocab_size + 8, dtype=torch.bfloat16)
    half = one.model.config.vocab_size // 2
    given = {}

    def launch(step, inputs, logits, hidden, stamps):
        logits[:half] = step._ranks.rank + 1
        given[step._ranks.rank] = logits.data_ptr() - memory.data_ptr()

    monkeypatch.setattr(DecodeStep, "_launch", launch)
    for rank in (0, 1):
        step = object.__new__(DecodeStep)  # whose weights are no kernel's on a CPU
        step._network = one.share(2, rank)
        step._ranks = StepRanks(rank, 2, torch.zeros(2), torch.zeros(2), memory)
        logits = step(one.inputs)
        assert logits.shape == (1, 2 * half) and logits.data_ptr() == memory.data_ptr()
    assert given == {0: 0, 1: 2 * half} and not memory[2 * half :].any()
    assert (logits[0, :half] == 1).all() and (logits[0, half:] == 2).all()

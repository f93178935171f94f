"""Arguments for ops: shapes, popularity of experts, and the same on `meta` as on a device."""

from dataclasses import fields, is_dataclass

import pytest
import torch

from haast.bench.cases import BUILDERS, SCALES, Draw, read_config, router_logits, shares
from haast.bench.experts import active_experts
from haast.errors import HaastError
from haast.mxfp4 import HopperLayout, SwizzledWeight
from haast.ops import OPS, Routing

CPU = torch.device("cpu")
TOKENS = 2000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def chosen(popularity, num_tokens=TOKENS, num_experts=32, num_active=4, seed=0):
    """[T, A] experts by the top of the logits."""
    found = shares(popularity, num_experts, generator(seed))
    logits = router_logits(num_tokens, found, generator(seed + 1))
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()
    return found, logits.float().topk(num_active).indices


def test_shares_by_zipfs_law():
    found = shares("skewed", 32, generator())
    assert found.sum().item() == pytest.approx(1.0)
    ordered = found.sort(descending=True).values
    assert torch.allclose(ordered[0] / ordered, torch.arange(1, 33, dtype=torch.float64))
    assert ordered[0].item() == pytest.approx(0.2464, abs=1e-4)
    assert shares("skewed", 32, generator(1)).argmax() != found.argmax()
    assert shares("uniform", 5, generator()).tolist() == [0.2] * 5


@pytest.mark.parametrize("popularity", ["uniform", "skewed"])
def test_experts_of_a_token_are_distinct_and_first_choices_follow_the_shares(popularity):
    expected, experts = chosen(popularity)
    assert all(len(set(row)) == 4 for row in experts.tolist())
    first = torch.bincount(experts[:, 0], minlength=32).double() / TOKENS
    assert (first - expected).abs().max() < 0.03


def test_skewed_routing_has_hot_experts_and_uniform_has_none():
    def load(popularity):
        return torch.bincount(chosen(popularity)[1].flatten(), minlength=32) / (TOKENS / 8)

    assert load("uniform").max() < 1.3 and load("uniform").min() > 0.7
    assert load("skewed").max() > 4 and load("skewed").min() < 0.5


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("tokens", [1, 5])
def test_shapes_on_meta_are_those_on_a_device(name, tokens, small_model):
    config = read_config(str(small_model))

    def describe(value):
        if isinstance(value, torch.Tensor):
            return value.shape, value.dtype
        if is_dataclass(value):
            value = [getattr(value, field.name) for field in fields(value)]
        return [describe(part) for part in value] if isinstance(value, tuple | list) else value

    there = BUILDERS[name](Draw.on(torch.device("meta")), config, tokens)
    here = BUILDERS[name](Draw.on(CPU), config, tokens)
    assert describe(there) == describe(here)


def test_every_op_with_kernels_has_a_case():
    assert {op.name for op in OPS if op.has_kernels} <= set(BUILDERS)
    assert set(BUILDERS) <= {op.name for op in OPS}


def test_the_same_seed_gives_the_same_bytes(small_model):
    config = read_config(str(small_model))
    first, again = (Draw.on(CPU, 3).mxfp4(2, 32, 64) for _ in range(2))
    assert torch.equal(first.values, again.values) and torch.equal(first.scales, again.scales)
    other = Draw.on(CPU, 4).mxfp4(2, 32, 64)
    assert not torch.equal(first.values, other.values)
    routing = Draw.on(CPU).routing(config, 40, "skewed")
    assert isinstance(routing, Routing)
    assert routing.expert_offs[-1] == 80 and active_experts(routing.expert_offs) == 6


def test_random_weights_use_every_code_and_scale():
    weight = Draw.on(CPU).mxfp4(4, 64, 256)
    assert len(weight.values.unique()) == 256
    assert weight.scales.unique().tolist() == list(range(SCALES[0], SCALES[1] + 1))
    swizzled = Draw.on(CPU).swizzled(4, 64, 256, paired=True)
    assert isinstance(swizzled, SwizzledWeight) and swizzled.layout == HopperLayout(paired=True)
    wide, again = (w.dequantize(torch.float32) for w in (weight, swizzled))
    assert torch.equal(wide, again)


def test_active_experts():
    assert active_experts(torch.tensor([0, 2, 2, 5, 5])) == 2
    assert active_experts(torch.tensor([0, 0, 0])) == 0


@pytest.mark.parametrize("name", ["gpt-oss-7b", "no/such/folder"])
def test_a_model_that_is_not_there(name):
    with pytest.raises(HaastError) as error:
        read_config(name)
    assert str(error.value) == (
        f"{name}: neither gpt-oss-20b nor gpt-oss-120b nor a config.json nor a folder with one"
    )


def test_models_by_name_file_and_folder(small_model):
    assert read_config("gpt-oss-120b").num_experts == 128
    assert read_config(str(small_model)) == read_config(str(small_model / "config.json"))

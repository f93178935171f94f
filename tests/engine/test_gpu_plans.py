"""What is planned where kernels run: graphs, their limits, deterministic results, memory."""

import pytest

from haast import ops
from haast.config import ConfigError, SpeculativeConfig
from haast.engine import footprint as footprint_module
from haast.engine.op_choice import DETERMINISTIC

from ..model.helpers import CPU
from .planning import LEFT, MODEL, WIDE, choices, planned

CAPTURED = ("attention", "route", "moe_up", "moe_down")


@pytest.mark.parametrize("missing", [None, *CAPTURED])
def test_graphs_need_kernels_where_references_read_the_device(kernels, gpu, missing):
    kernels(*CAPTURED)
    assert planned(model=WIDE).has_graphs and not planned(model=MODEL).has_graphs
    assert not planned(device=CPU, model=WIDE).has_graphs
    assert not planned("bfloat16", model=WIDE).has_graphs
    kernels(*(name for name in CAPTURED if name != missing))
    assert planned(model=WIDE).has_graphs == (missing is None)


@pytest.mark.parametrize("missing", [None, "attention", "moe_up", "moe_down"])
def test_deterministic_pins_what_depends_on_its_row_alone(kernels, gpu, missing):
    kernels(*(name for name in (*CAPTURED, "sample") if name != missing))
    if missing is not None:
        words = f"^deterministic needs the kernel of {missing}, which cannot run: no kernel in its"
        with pytest.raises(ConfigError, match=words):
            planned(model=WIDE, deterministic=True)
        return
    plan = planned(model=WIDE, deterministic=True)
    assert DETERMINISTIC.items() <= plan.pins.items() and plan.has_graphs and plan.is_swizzled
    assert all(choices(plan)[op] == (name, "deterministic") for op, name in DETERMINISTIC.items())
    assert choices(plan)["route"] == choices(plan)["sample"] == LEFT
    with pytest.raises(ConfigError, match="which cannot run: kernels need a Hopper GPU, this is"):
        planned(device=CPU, model=WIDE, deterministic=True)


def test_what_deterministic_pins_is_there():
    """An op whose kernels were renamed must not be found out on a GPU only."""
    found = {op.name: op.implementations for op in ops.MODEL_OPS if op.name in DETERMINISTIC}
    assert {op: name for op, name in DETERMINISTIC.items() if name in found[op]} == DETERMINISTIC


@pytest.mark.parametrize(
    "wishes, words",
    [
        ({"kv_cache_page_size": 64}, "kv_cache_page_size must be 128 on this GPU, .*; got 64"),
        ({"max_batch_size": 5000}, "max_batch_size may be .* at most on this GPU, .*; got 5000"),
    ],
)
def test_limits_of_the_attention_kernels(kernels, gpu, wishes, words):
    kernels(*CAPTURED)
    with pytest.raises(ConfigError, match=f"^{words}$"):
        planned(model=WIDE, **wishes)
    assert planned(model=MODEL, **wishes).memory.page_size == wishes.get("kv_cache_page_size", 128)


def test_a_step_takes_memory_on_a_gpu(kernels, gpu):
    """A token: 2 experts' rows of 96 + 64 in bf16 twice and 96 in fp32, qkv of 160, 6 x 96."""
    token = 2 * (2 * 96 + 2 * 64 + 4 * 96) + 2 * (2 * 160 + 6 * 96)
    plan = planned(max_batch_size=3, max_batch_input_tokens=1000)
    assert plan.memory.workspace_bytes == 1000 * token + 3 * 300 * 6 + (1 << 30)
    assert planned(device=CPU).memory.workspace_bytes == 0
    assert (
        planned().max_batch_size == 256 and planned(max_batch_input_tokens=90).max_batch_size == 90
    )


def test_a_step_that_is_too_large_is_refused(kernels, gpu, monkeypatch):
    monkeypatch.setattr(footprint_module, "free_memory", lambda device: 1 << 30)
    with pytest.raises(ConfigError, match="take 0.00 GB and a step 1.10 GB, but 0.97 GB may be"):
        planned()


def test_kernels_read_either_cache(kernels, gpu):
    kernels("attention", "rope_kv_write")
    held = planned(model=WIDE, kv_cache_format="float8_e4m3fn")
    assert 2 * held.memory.kv_bytes == planned(model=WIDE).memory.kv_bytes


@pytest.mark.parametrize("batch, expected", [(1, 7), (256, 64), (448, 64), (500, 12)])
def test_guesses_are_rows_of_attention(kernels, gpu, batch, expected):
    kernels(*CAPTURED)
    wish = SpeculativeConfig("ngram")
    plan = planned(model=WIDE, max_batch_size=batch, speculative_config=wish)
    assert plan.max_drafts == expected
    plain = planned(model=WIDE, max_batch_size=batch)
    more = plan.memory.workspace_bytes - plain.memory.workspace_bytes
    assert more == 6 * expected * WIDE.vocab_size


def test_no_row_of_attention_is_left_for_a_guess(kernels, gpu):
    kernels(*CAPTURED)
    words = "a step of up to 512 rows has none for guesses beside max_batch_size 512; lower that"
    with pytest.raises(ConfigError, match=words):
        planned(model=WIDE, max_batch_size=512, speculative_config=SpeculativeConfig("ngram"))


@pytest.mark.parametrize(
    "batch, tokens, count, expected",
    [(1, 8192, 7, 7), (8, 8192, 7, 56), (8, 8192, 1, 8), (64, 8192, 7, 64), (8, 11, 7, 3)],
)
def test_rows_for_guesses(gpu, batch, tokens, count, expected):
    wish = SpeculativeConfig("ngram", count)
    wishes = {"max_batch_size": batch, "max_batch_input_tokens": tokens}
    plan = planned(device=CPU, speculative_config=wish, **wishes)
    assert (plan.max_drafts, plan.speculative_config) == (expected, wish)
    assert planned(device=CPU, **wishes).max_drafts == 0


def test_no_row_for_a_guess_is_a_refusal(gpu):
    wishes = {"max_batch_size": 8, "max_batch_input_tokens": 8}
    with pytest.raises(ConfigError) as error:
        planned(device=CPU, speculative_config=SpeculativeConfig("ngram"), **wishes)
    assert str(error.value) == (
        "speculative_config: a step of up to 8 rows has none for guesses beside max_batch_size 8; "
        "lower that"
    )

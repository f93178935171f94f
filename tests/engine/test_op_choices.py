"""Which ops run kernels, in which order experts are held, and the reasons that the plan gives."""

from dataclasses import replace

import pytest
import torch

from haast import ops
from haast.config import EngineConfig
from haast.engine import load as load_module
from haast.engine.footprint import parameter_bytes
from haast.engine.load import prepare
from haast.engine.op_choice import choose_decode_step
from haast.engine.plan import make_plan
from haast.model.config_file import read_model_config
from haast.model.locate import demo_folder, packaged_folder
from haast.model.random_weights import random_parameters
from haast.mxfp4 import Mxfp4Weight, SwizzledWeight

from ..model.helpers import CPU
from .planning import BY_KERNELS, GPU, LEFT, MODEL, WIDE, choices, pins, planned
from .small_model import CONFIG

NO_KERNEL = ("reference", "no kernel in its table")
NOT_ON_CPU = ("reference", "kernels need a Hopper GPU, this is cpu")


def others(*names):
    return [op.name for op in ops.MODEL_OPS if op.name not in names]


def test_hopper_runs_the_kernels_there_are(kernels, gpu):
    plan = planned()
    expected = dict.fromkeys(BY_KERNELS, LEFT) | dict.fromkeys(others(*BY_KERNELS), NO_KERNEL)
    assert choices(plan) == expected and plan.is_swizzled
    assert pins(plan) == dict.fromkeys(others(*BY_KERNELS), "reference")


def test_dense_experts_run_references(kernels, gpu):
    plan = planned("bfloat16")
    dense = ("reference", "no kernel for dense experts")
    assert choices(plan)["moe_up"] == choices(plan)["moe_down"] == dense
    assert choices(plan)["route"] == LEFT and choices(plan)["linear"] == NO_KERNEL
    assert not plan.is_swizzled and pins(plan) == dict.fromkeys(others("route"), "reference")


@pytest.mark.parametrize(
    "found, why",
    [
        (((8, 0), None), "kernels need compute capability 9.0, cuda:0 has 8.0"),
        (((10, 0), "no g++"), "kernels need compute capability 9.0, cuda:0 has 10.0"),
        (((9, 0), "no g++"), "no g++"),
    ],
)
def test_a_gpu_without_kernels_runs_references_and_says_so(kernels, gpu, found, why):
    assert planned().warning is None
    gpu(*found)
    plan = planned()
    assert plan.warning == f"this GPU runs only references, which are slow: {why}"
    assert choices(plan)["moe_up"] == choices(plan)["route"] == ("reference", why)
    assert choices(plan)["linear"] == NO_KERNEL
    assert not plan.is_swizzled and pins(plan) == dict.fromkeys(others(), "reference")


def test_the_cpu_runs_references(kernels, gpu):
    plan = planned(device=CPU)
    expected = dict.fromkeys(BY_KERNELS, NOT_ON_CPU) | dict.fromkeys(others(*BY_KERNELS), NO_KERNEL)
    assert choices(plan) == expected and plan.warning is None
    assert not plan.is_swizzled and pins(plan) == dict.fromkeys(others(), "reference")


def test_attention_kernels_are_for_the_heads_of_gpt_oss(kernels, gpu):
    kernels("attention", "rope_kv_write")
    small = choices(planned())
    why = ("reference", "its kernel takes heads of 64, got 16")
    assert small["attention"] == small["rope_kv_write"] == why
    other = choices(planned(model=replace(WIDE, num_heads=6)))
    assert other["attention"][1].endswith("8 query heads a kv head, got 6 for 2")
    like_gpt_oss = choices(planned(model=WIDE))
    assert like_gpt_oss["attention"] == like_gpt_oss["rope_kv_write"] == LEFT


def test_without_kernels_for_experts_their_bytes_stay(kernels, gpu):
    kernels("route")
    plan = planned()
    assert choices(plan)["route"] == LEFT and choices(plan)["moe_up"] == NO_KERNEL
    assert not plan.is_swizzled
    kernels("moe_down")
    assert planned().is_swizzled


def test_swizzled_bytes_are_planned(kernels, gpu):
    """H = 96 leaves half a block of padding in up_weight."""
    swizzled = random_parameters(CONFIG, "mxfp4", CPU, is_swizzled=True).nbytes
    assert planned().memory.weight_bytes == parameter_bytes(MODEL, "mxfp4", is_swizzled=True)
    assert planned().memory.weight_bytes == swizzled > parameter_bytes(MODEL, "mxfp4")
    kernels()
    assert planned().memory.weight_bytes == parameter_bytes(MODEL, "mxfp4")


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gpt-oss-120b"])
def test_the_published_models_need_no_padding(name):
    config = read_model_config(packaged_folder(name) / "config.json")
    plain = parameter_bytes(config, "mxfp4")
    assert parameter_bytes(config, "mxfp4", is_swizzled=True) == plain


def prepare_as_if_on_hopper(monkeypatch, **wishes):
    """Prepared with a plan of a Hopper GPU, whose weights then load on the CPU."""

    def plan(config, model, source, encoding, device):
        return make_plan(config, model, source, encoding, GPU)

    monkeypatch.setattr(load_module, "make_plan", plan)
    return prepare(EngineConfig(devices="cpu", **wishes))


@pytest.mark.parametrize("encoding, kind", [("mxfp4", SwizzledWeight), ("bfloat16", torch.Tensor)])
@pytest.mark.parametrize("load_format", ["auto", "dummy"])
def test_weights_are_loaded_as_planned(kernels, gpu, monkeypatch, load_format, encoding, kind):
    wishes = {"model_path": demo_folder(), "load_format": load_format}
    wishes["quantization_encoding"] = encoding
    prepared = prepare_as_if_on_hopper(monkeypatch, **wishes)
    parameters = prepared.make_parameters(None)
    assert isinstance(parameters.layers[0].up_weight, kind)
    assert prepared.plan.memory.weight_bytes == parameters.nbytes


@pytest.mark.parametrize("load_format", ["auto", "dummy"])
def test_the_cpu_keeps_the_order_of_the_checkpoint(load_format):
    wishes = {"model_path": demo_folder(), "load_format": load_format}
    prepared = prepare(EngineConfig(devices="cpu", **wishes))
    assert not prepared.plan.is_swizzled
    assert isinstance(prepared.make_parameters(None).layers[0].up_weight, Mxfp4Weight)


@pytest.mark.parametrize(
    "wishes, why",
    [
        ({}, None),
        ({"deterministic": True}, "deterministic"),
        ({"kv_cache_format": "float8_e4m3fn"}, "KV cache in bfloat16"),
        ({"quantization_encoding": "bfloat16"}, "MXFP4 experts"),
    ],
)
def test_one_request_decodes_in_one_kernel_where_it_can(kernels, gpu, wishes, why):
    config = read_model_config(packaged_folder("gpt-oss-20b") / "config.json")
    wished = EngineConfig(**wishes)
    encoding = wishes.get("quantization_encoding", "mxfp4")
    choice = choose_decode_step(wished, config, encoding, [GPU])
    if why is None:
        assert choice.implementation == ops.PERSISTENT
    else:
        assert choice.implementation == "reference" and why in choice.because
    assert choose_decode_step(wished, config, encoding, [CPU]).implementation == "reference"
    several = choose_decode_step(wished, config, encoding, [GPU, GPU])
    assert several.implementation == choice.implementation
    assert why is None or several.because == choice.because


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ((132, 132), None),
        ((114, 132), "its ranks take GPUs with as many SMs each, got 114 to 132"),
        ((161, 161), "takes up to 160 SMs, got 161"),
    ],
)
def test_ranks_share_out_a_step_over_as_many_sms_each(kernels, gpu, monkeypatch, counts, why):
    """Rank 0 waits for a word of each CTA of the others."""
    sms = dict(zip((GPU, torch.device("cuda", 1)), counts, strict=True))
    monkeypatch.setattr("haast.engine.op_choice.num_ctas_of", sms.__getitem__)
    config = read_model_config(packaged_folder("gpt-oss-20b") / "config.json")
    choice = choose_decode_step(EngineConfig(), config, "mxfp4", [*sms])
    assert choice.implementation == (ops.PERSISTENT if why is None else "reference")
    assert why is None or choice.because == f"op by op: {why}"


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gpt-oss-120b"])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_several_devices_decode_one_request_in_a_kernel_each(kernels, gpu, name, count):
    config = read_model_config(packaged_folder(name) / "config.json")
    choice = choose_decode_step(EngineConfig(), config, "mxfp4", [GPU] * count)
    assert choice.implementation == ops.PERSISTENT
    assert choice.because == f"steps of one request in one kernel on each of {count} devices"
    mixed = choose_decode_step(EngineConfig(), config, "mxfp4", [GPU] * (count - 1) + [CPU])
    assert (mixed.implementation, mixed.because) == (
        "reference",
        "op by op: kernels need a Hopper GPU, this is cpu",
    )
    wide = replace(config, intermediate_size=2 * 2880)
    choice = choose_decode_step(EngineConfig(), wide, "mxfp4", [GPU] * count)
    if count > 2:
        assert choice.implementation == ops.PERSISTENT
    else:
        assert "intermediate size of a rank of a multiple of 32 up to 1536" in choice.because

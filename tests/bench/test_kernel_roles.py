"""Which part of the network a kernel computes, and what that cannot avoid."""

import pytest

from haast.bench.cases import read_config
from haast.bench.kernel_roles import DecodeShape, kernel_parts, kernel_works, short_symbol
from haast.bench.whole_model import decode_work

REAL = read_config("gpt-oss-20b")
LAYER = (
    "linear_mma_m8",
    "rope_kv_write",
    "attention_decode_1",
    "attention_merge",
    "linear_mma_m8",
    "add_rms_norm_bf16",
    "linear_mma_m8",
    "route_small_bf16",
    "moe_up_mma_8",
    "moe_down_mma_8",
    "moe_combine_fp32",
    "add_rms_norm_bf16",
)
NAMES = "qkv rope attention merge o norm router route up down combine norm".split()
STEP = ("rms_norm_bf16", *LAYER * REAL.num_layers, "linear_mma_m8", "sample_bf16")


def names_of(symbols):
    return ["+".join(parts) for parts in kernel_parts(symbols)]


def shape(batch=1, context=1000, experts=4, cache_bytes=2):
    return DecodeShape(REAL, batch, context, (experts,) * REAL.num_layers, cache_bytes)


def test_products_are_told_apart_by_their_neighbours():
    assert names_of(STEP) == ["norm", *NAMES * REAL.num_layers, "head", "sample"]


def test_the_library_s_products_and_their_second_kernels():
    fill = "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<int> >(int)"
    gemm = "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16>(Params)"
    split = "void cublasLt::splitKreduce_kernel<32, 16, int, float>(cublasSplitKParams<float>)"
    symbols = [fill, "nvjet_tst_64x8", split, "rope_kv_write_fp8", "attention_decode_8"]
    symbols += [gemm, split, "add_rms_norm_bf16", gemm, split, "route_choose_bf16"]
    symbols += ["route_place", "moe_gather", "moe_up_wgmma_64", "moe_down_wgmma_64", gemm, split]
    assert names_of(symbols) == [
        *("", "qkv", "qkv sum", "rope", "attention", "o", "o sum", "norm", "router", "router sum"),
        *("route", "route", "gather", "up", "down", "head", "head sum"),
    ]


def test_fused_kernels_have_several_parts():
    symbols = (
        "norm_qkv_rope_mma",
        "attention_merge_m8",
        "linear_norm_m8",
        "router_route",
        "moe_up",
    )
    assert names_of(symbols) == ["norm+qkv+rope", "merge", "o+norm", "router+route", "up"]
    works = [work for _, work in kernel_works(kernel_parts(symbols), shape())]
    (_, alone), (_, norm) = kernel_works((("o",), ("norm",)), shape())
    assert works[2] == alone + norm


def test_unknown_kernels_and_copies_have_no_part():
    assert names_of(["whole_step", "Memcpy HtoD (Pinned -> Device)", "Memset (Device)"]) == [""] * 3
    assert kernel_works(kernel_parts(["whole_step"]), shape()) == [(None, None)]


@pytest.mark.parametrize("batch, experts", [(1, 4), (8, 21)])
def test_the_parts_add_up_to_the_step(batch, experts):
    """But for vectors in and out, which the floor of a step leaves out."""
    found = kernel_works(kernel_parts(STEP), shape(batch, 1000, experts))
    total = sum(work.nbytes for _, work in found if work is not None)
    floor = decode_work(REAL, batch, 1000, experts)
    assert floor.nbytes < total < 1.005 * floor.nbytes
    dense = sum(work.flop for _, work in found if work is not None)
    scores = batch * 4 * 4096 * 12 * (1000 + 128)
    routers = batch * 2 * 24 * 2880 * 32
    assert dense == floor.flop + scores + routers


def test_layers_are_counted_by_their_qkv():
    found = kernel_works(kernel_parts(STEP), shape())
    assert [layer for layer, _ in found] == [
        None,
        *(layer for layer in range(REAL.num_layers) for _ in LAYER),
        *(REAL.num_layers - 1,) * 2,
    ]
    attention = [
        work.nbytes
        for (_, work), name in zip(found, names_of(STEP), strict=True)
        if name == "attention"
    ]
    vectors = 2 * 2 * 4096
    assert attention[:2] == [128 * 2048 + vectors, 1000 * 2048 + vectors]


def test_each_layer_has_its_own_experts():
    some = DecodeShape(REAL, 2, 9, tuple(range(1, 25)), 2)
    found = kernel_works(kernel_parts(STEP), some)
    up = [
        work.nbytes for (_, work), name in zip(found, names_of(STEP), strict=True) if name == "up"
    ]
    assert {b - a for a, b in zip(up, up[1:], strict=False)} == {2 * 2880 * 2880 * 17 // 32}


def test_short_symbols():
    assert short_symbol("linear_mma_m8") == "linear_mma_m8"
    assert short_symbol("void at::native::(anonymous namespace)::copy<int, 4>(int)") == "copy"
    assert short_symbol("void at::native::index_kernel<at::A<int>(B)>(int)") == "index_kernel"
    assert short_symbol("Memcpy HtoD (Pinned -> Device)") == "Memcpy HtoD (Pinned -> Device)"

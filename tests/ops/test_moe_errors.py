"""What the mixture's ops say to wrong arguments, before anything is launched. Needs no GPU."""

import re
from dataclasses import replace

import pytest
import torch

from haast.mxfp4 import HopperLayout, SwizzledWeight
from haast.ops import Routing, grouped_matmul, moe_down, moe_up, route
from haast.ops.moe import combine, cuda_mma, cuda_route, cuda_wgmma

T, A, E, H, I = 5, 3, 6, 96, 160
R = T * A
BF16, F32, INT, BYTE = torch.bfloat16, torch.float32, torch.int32, torch.uint8


@pytest.fixture(autouse=True)
def no_launch(monkeypatch):
    def launch(*args, **options):
        pytest.fail(f"launched {args}")

    for module in (combine, cuda_mma, cuda_route, cuda_wgmma):
        monkeypatch.setattr(module, "launch", launch)


def full(*shape, dtype=BF16, device="meta"):
    return torch.zeros(shape, dtype=dtype, device=device)


def weight(*shape, paired=False, device="meta"):
    layout = HopperLayout(paired)
    storage = full(*layout.storage_shape(shape), dtype=BYTE, device=device)
    return SwizzledWeight(storage, shape[-1], layout)


def routing(device="meta"):
    return Routing(
        expert_ids=full(T, A, dtype=INT, device=device),
        expert_weights=full(T, A, dtype=F32, device=device),
        expert_offs=full(E + 1, dtype=INT, device=device),
        gather_idx=full(R, dtype=INT, device=device),
        scatter_idx=full(R, dtype=INT, device=device),
    )


def good(op, device="meta"):
    """Arguments by name that a kernel accepts."""
    if op is route:
        return {"logits": full(T, E, device=device), "num_active": A}
    if op is grouped_matmul:
        return {
            "x": full(R, H, device=device),
            "weight": weight(E, 2 * I, H, device=device),
            "expert_offs": full(E + 1, dtype=INT, device=device),
        }
    paired = op is moe_up
    rows = {"x": full(T, H, device=device)} if paired else {"h": full(R, I, device=device)}
    size = (E, 2 * I, H) if paired else (E, H, I)
    return {
        **rows,
        "weight": weight(*size, paired=paired, device=device),
        "bias": full(*size[:2], device=device),
        "routing": routing(device),
        **({"limit": 7.0} if paired else {}),
    }


OPS = (route, moe_up, moe_down, grouped_matmul)
EVERY_OP = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
NO_PAIR = "weight must be swizzled with paired=False; it has paired=True"
PAIR = "weight must be swizzled with paired=True; it has paired=False"
SWIZZLED = "weight must be a SwizzledWeight; got "
TOO_MANY = "weight must be [E, N, K], none of them 0, with at most 256 experts; got "
OTHER_K = "weight has K = 64, but the rows have "


def strided(*shape, dtype=BF16):
    """Of this shape, with every second column of a wider one."""
    return full(*shape[:-1], 2 * shape[-1], dtype=dtype)[..., ::2]


def wrong_tensors(name, shape, dtype, other):
    """(name, value, beginning of the message) for a tensor of this shape and dtype."""
    return [
        (name, full(*shape, dtype=other), f"{name} must be {dtype}; got {other}"),
        (name, full(*shape[:-1], shape[-1] + 16, dtype=dtype), f"{name} must have shape ["),
        (name, full(*shape, 1, dtype=dtype), f"{name} must have shape ["),
        (name, strided(*shape, dtype=dtype), f"{name} must be contiguous; its strides are "),
        (name, full(*shape, dtype=dtype, device="cpu"), " is on "),
    ]


def wrong_rows(name, rows, k):
    """K is what the weight says, so another K is the weight's error."""
    found = wrong_tensors(name, (rows, k), BF16, F32)
    found[1] = (name, full(rows, 64), f"weight has K = {k}, but the rows have 64")
    return found


def wrong_weights(n, k, paired):
    fine = weight(E, n, k, paired=paired)
    dense = full(E, n, k)
    return [
        ("weight", dense, SWIZZLED + "Tensor"),
        ("weight", weight(E, n, k, paired=not paired), PAIR if paired else NO_PAIR),
        ("weight", weight(E, n, 64, paired=paired), OTHER_K),
        ("weight", weight(257, n, k, paired=paired), TOO_MANY),
        ("weight", weight(n, k, paired=paired), TOO_MANY),
        ("weight", weight(0, n, k, paired=paired), TOO_MANY),
        ("weight", weight(E, 0, k, paired=paired), TOO_MANY),
        ("weight", replace(fine, storage=fine.storage.char()), "weight.storage must be "),
        ("weight", replace(fine, storage=fine.storage[..., :-1]), "weight.storage must have shape"),
        ("weight", weight(E, n, k, paired=paired, device="cpu"), "weight is on cpu, but "),
    ]


def wrong_routings():
    fields = {
        "expert_ids": ((T, A), INT),
        "expert_weights": ((T, A), F32),
        "expert_offs": ((E + 1,), INT),
        "gather_idx": ((R,), INT),
        "scatter_idx": ((R,), INT),
    }
    found = []
    for name, (shape, dtype) in fields.items():
        for _, value, message in wrong_tensors(name, shape, dtype, torch.int64):
            if name == "expert_ids" and value.shape != (T, A):
                continue
            found.append(("routing", replace(routing(), **{name: value}), message))
    fewer = replace(routing(), expert_ids=full(T, A - 1, dtype=INT))
    return [*found, ("routing", fewer, "must have shape [")]


WRONG = {
    route: [
        ("logits", full(T, E, dtype=torch.float16), "logits must be torch.bfloat16 or torch.fl"),
        ("logits", full(T, E, dtype=torch.float64), "logits must be torch.bfloat16 or torch.fl"),
        ("logits", full(E), "logits must have shape ['*', '*']; got [6]"),
        ("logits", full(1, T, E), "logits must have shape ['*', '*']; got [1, 5, 6]"),
        ("logits", strided(T, E), "logits must be contiguous; its strides are (12, 2)"),
        ("logits", full(T, 257), "logits have 257 experts; at most 256 are supported"),
        ("num_active", 0, "num_active must be 1..6; got 0"),
        ("num_active", -1, "num_active must be 1..6; got -1"),
        ("num_active", 7, "num_active must be 1..6; got 7"),
    ],
    moe_up: [
        *wrong_rows("x", T, H),
        ("x", full(T + 1, H), "x must have shape [5, '*']; got [6, 96]"),
        *wrong_weights(2 * I, H, paired=True),
        *wrong_tensors("bias", (E, 2 * I), BF16, F32),
        *wrong_routings(),
    ],
    moe_down: [
        *wrong_rows("h", R, I),
        ("h", full(R - 1, I), "h must have shape [15, '*']; got [14, 160]"),
        *wrong_weights(H, I, paired=False),
        *wrong_tensors("bias", (E, H), BF16, F32),
        *wrong_routings(),
    ],
    grouped_matmul: [
        *wrong_rows("x", R, H),
        *wrong_weights(2 * I, H, paired=False),
        *wrong_tensors("expert_offs", (E + 1,), INT, torch.int64),
        ("out_dtype", torch.float16, "out_dtype must be torch.bfloat16 or torch.float32; got "),
    ],
}
CASES = [(op, *case) for op, cases in WRONG.items() for case in cases]
IDS = [f"{op.name}-{name}-{message[:40]}" for op, name, _, message in CASES]


@pytest.mark.parametrize("op, name, value, message", CASES, ids=IDS)
def test_wrong_argument(op, name, value, message):
    """A ValueError from every kernel alike, that says what was wrong."""
    arguments = {**good(op), name: value}
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        op(**arguments)
    assert "\n" not in str(error.value)
    for kernel in op.kernels:
        with pytest.raises(ValueError, match=re.escape(message)):
            kernel.rejects(**arguments)


@pytest.mark.parametrize("num_experts, num_active", [(256, 32), (32, 32), (256, 1), (1, 1)])
def test_limits_of_route(num_experts, num_active):
    assert route.choose(full(T, num_experts), num_active)
    with pytest.raises(ValueError, match=f"num_active must be 1..{min(32, num_experts)}; got 33"):
        route(full(T, num_experts), 33)


@pytest.mark.parametrize("num_experts", [1, 255, 256])
def test_limits_of_experts(num_experts):
    """256 are served."""
    offs = full(num_experts + 1, dtype=INT)
    assert grouped_matmul.choose(full(R, H), weight(num_experts, 48, H), offs)


@EVERY_OP
def test_what_is_right_is_accepted(op):
    assert op.choose(**good(op)) in [kernel.fn for kernel in op.kernels]


@EVERY_OP
def test_without_a_gpu(op):
    with pytest.raises(LookupError, match="kernels need a Hopper GPU.* cpu"):
        op(**good(op, device="cpu"))


def test_a_device_mix_names_the_argument():
    arguments = {**good(moe_up), "bias": full(E, 2 * I, device="cpu")}
    with pytest.raises(ValueError, match="^bias is on cpu, but x is on meta$"):
        moe_up(**arguments)


@pytest.mark.parametrize("op", [moe_up, moe_down], ids=lambda op: op.name)
def test_many_rows_an_expert_go_to_the_next_kernel(op):
    few, many = op.kernels
    arguments = good(op)
    assert op.choose(**arguments) is few.fn
    arguments["weight"] = weight(1, *arguments["weight"].shape[1:], paired=op is moe_up)
    arguments["bias"] = arguments["bias"][:1]
    arguments["routing"] = replace(routing(), expert_offs=full(2, dtype=INT))
    assert op.choose(**arguments) is many.fn
    assert "rows an expert" in few.rejects(**arguments)


def test_long_k_is_no_error():
    """K beyond the registers of one kernel is served by another."""
    k = 3136
    offs = replace(routing(), expert_offs=full(E + 1, dtype=INT))
    args = (full(T, k), weight(E, 32, k, paired=True), full(E, 32), offs, 7.0)
    assert "takes K up to" in cuda_mma.UP.rejects(*args)
    assert moe_up.choose(*args) is cuda_wgmma.UP.fn

"""`haast ops`: what it says, and that a GPU does what it says."""

import json

import pytest
import torch

from haast.bench.cases import BUILDERS, Draw, read_config
from haast.bench.machine import why_no_hopper
from haast.bench.tables import find_op, launched, op_table
from haast.ops import OPS

TOKENS = (1, 7, 64, 1024)


def test_every_op_is_there_and_every_size(haast):
    outcome = haast("ops", "--tokens", "1,64")
    assert outcome.code == 0 and outcome.err == ""
    blocks = [block for block in outcome.out.splitlines() if not block.startswith(" ")]
    assert [block.split("(")[0] for block in blocks] == [op.name for op in OPS]
    with_kernels = sum(op.has_kernels for op in OPS)
    assert outcome.out.count("  1 tokens\n") == outcome.out.count("  64 tokens\n") == with_kernels
    assert outcome.out.count("reference (no kernel in its table)") == len(OPS) - with_kernels
    others = sum(not k.is_default for op in OPS if op.has_kernels for k in op.kernels)
    assert outcome.out.count("only when pinned") == 2 * (with_kernels + others)


def test_at_model_shapes_every_op_with_kernels_runs_one(haast):
    for model in ("gpt-oss-20b", "gpt-oss-120b"):
        outcome = haast("ops", "--model", model, "--json", "--tokens", "1,8,512,8192")
        document = json.loads(outcome.out)
        assert document["model"] == model and len(document["ops"]) == len(OPS)
        for op in document["ops"]:
            for table in op["tables"]:
                (runs,) = [v for v in table["verdicts"] if v["runs"]]
                assert runs["reason"] is None and (runs["symbols"] or runs["name"] == "cublas")
                assert all(v["reason"] for v in table["verdicts"] if not v["runs"]), table
                if runs["symbols"]:
                    found = launched(find_op(op["op"]), read_config(model), table["num_tokens"])
                    assert [*found] == runs["symbols"]


def test_what_runs_stands_with_its_symbols_and_the_rest_with_reasons(haast):
    lines = haast("ops", "--tokens", "1").out.splitlines()
    assert any(line.startswith("    > ") and " -> " in line for line in lines)
    assert all(len(line.split()) > 2 for line in lines if line.startswith("    x "))


@pytest.mark.parametrize("value", ["0", "1,,2", "many", "1;2", "-4", ""])
def test_bad_tokens(refused, value):
    words = f"positive numbers with commas between; got '{value}'"
    assert words in refused("ops", "--tokens", value)


def test_an_unknown_model(refused):
    assert refused("ops", "--model", "gpt-5").startswith("gpt-5: neither gpt-oss-20b nor ")


def seen(call):
    """Names of the CUDA kernels of a call, in order."""
    from torch.profiler import ProfilerActivity, profile

    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as watched:
        call()
        torch.cuda.synchronize()
    kernels = [e for e in watched.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    kernels.sort(key=lambda event: event.time_range.start)
    return [e.name for e in kernels if not e.name.startswith(("Memcpy", "Memset"))]


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("op", [op for op in OPS if op.has_kernels], ids=lambda op: op.name)
def test_a_gpu_launches_what_the_table_names(op, tokens):
    reason = why_no_hopper()
    if reason is not None:
        pytest.skip(reason)
    config = read_config("gpt-oss-20b")
    arguments = BUILDERS[op.name](Draw.on(torch.device("cuda", 0)), config, tokens)
    names = seen(lambda: op(*arguments))
    if op_table(op, config, tokens).symbols:
        assert names == [*launched(op, config, tokens)]
    else:
        assert names and not any("linear_mma" in name for name in names)

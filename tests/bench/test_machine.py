"""What a result says about its machine, and errors in one line."""

import pytest
import torch

from haast.bench import machine
from haast.bench.checkout import commit, program_output
from haast.bench.machine import BenchError, Card, hopper, one_line, parse_card
from haast.ops import hopper as hopper_module


def test_a_card_in_full_and_in_part():
    assert parse_card("580.159.04, 1980, 3201, 41, 118.25") == Card(
        "580.159.04", 1980.0, 3201.0, 41.0, 118.25
    )
    assert parse_card("580.1, [N/A], 3201, [Not Supported], [N/A]") == Card(
        "580.1", None, 3201.0, None, None
    )
    assert parse_card(None) == parse_card("") == parse_card("No devices were found") == Card()


def test_a_missing_program_says_nothing():
    assert program_output(("no-such-program-anywhere",)) is None
    assert program_output(("false",)) is None
    assert program_output(("echo", "x")) == "x"


def test_commit_is_a_hash_or_nothing():
    found = commit()
    assert found is None or len(found.rstrip("+")) >= 7


@pytest.mark.parametrize(
    "build, count, capability, words",
    [
        (None, 0, None, "is a CPU build"),
        ("13.0", 0, None, "torch sees no GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES"),
        ("13.0", 1, (8, 0), "kernels need compute capability 9.0, cuda:0 has 8.0"),
        ("13.0", 1, (10, 0), "kernels need compute capability 9.0, cuda:0 has 10.0"),
    ],
)
def test_why_no_hopper(monkeypatch, build, count, capability, words):
    monkeypatch.setattr("torch.version.cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with pytest.raises(BenchError) as error:
        hopper()
    assert str(error.value).endswith(words) and "\n" not in str(error.value)


def test_a_hopper_gpu_is_taken(monkeypatch):
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(hopper_module, "_why_not_built", lambda: None)
    assert hopper() == torch.device("cuda", 0)
    monkeypatch.setattr(hopper_module, "_why_not_built", lambda: "no g++")
    with pytest.raises(BenchError, match=r"^no g\+\+$"):
        hopper()


def test_refusals_and_lack_of_memory_are_one_line():
    with pytest.raises(BenchError, match="^no kernel accepts$"), one_line():
        raise LookupError("no kernel accepts")
    with pytest.raises(BenchError, match="^out of GPU memory: tried 3 GiB$"), one_line():
        raise torch.OutOfMemoryError("tried 3 GiB\nof which")
    with pytest.raises(ZeroDivisionError), one_line():
        raise ZeroDivisionError


def test_a_document_names_code_and_machine(rehearsal):
    found = machine.document("x", answer=42)
    assert list(found)[:7] == ["bench", "date", "commit", "gpu", "driver", "torch", "triton"]
    assert found["bench"] == "x" and found["gpu"] == "NVIDIA Test" and found["answer"] == 42

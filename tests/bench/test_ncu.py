"""Nsight Compute: the command, the CSV, and the verdicts."""

import sys
from pathlib import Path

import pytest

from haast.bench.counters import describe, traffic
from haast.bench.drive import WARMUP
from haast.bench.machine import BenchError
from haast.bench.ncu import Launch, parse_raw, read_report, report_path, watch, watch_command
from haast.bench.rooflines import Work
from tests.bench.ncu_report import raw_page

MEMORY_BOUND = Work(35_400_000, 35_400_000 * 8)
COMPUTE_BOUND = Work(35_400_000, 35_400_000 * 500)


def lines(launch: Launch, work: Work) -> dict[str, tuple[str, str]]:
    return {line.label: (line.value, line.verdict) for line in describe(launch, work)}


def test_the_page_is_read_with_commas_and_without_words():
    first, second = parse_raw(raw_page())
    assert (first.kernel, second.kernel) == ("moe_up_mma_n8", "moe_down_combine")
    assert first.metrics["dram__bytes_read.sum"] == 35_500_000
    assert second.metrics["gpu__time_duration.sum"] == 2050.5
    assert "sm__inst_executed_pipe_lsu.avg.pct_of_peak_sustained_active" not in first.metrics
    assert second.metrics["sm__inst_executed_pipe_lsu.avg.pct_of_peak_sustained_active"] == 1


@pytest.mark.parametrize("text", ["", "==ERROR== nothing", '"a","b"\n"1","2"\n'])
def test_what_is_no_page_is_refused(text):
    with pytest.raises(BenchError, match="ncu printed no raw page in CSV"):
        parse_raw(text)


def test_a_memory_bound_kernel():
    found = lines(parse_raw(raw_page())[0], MEMORY_BOUND)
    assert found["time"] == ("13.10 us", "")
    assert found["DRAM read"] == ("35.50 MB", "")
    assert found["DRAM of peak"] == ("84.50 %", "ok")
    assert found["ALU pipe"] == ("72.50 %", "LOOK: above 70")
    assert found["tensor pipe"] == ("11.00 %", "")
    assert found["top stalls"] == ("long_scoreboard 9.50, wait 1.50, barrier 0.75", "")
    assert found["shared bank conflicts"] == ("1,024", "")
    assert found["local loads"] == ("0", "ok") and found["local stores"] == ("8", "LOOK: above 0")
    assert found["registers a thread"] == ("128", "") and found["blocks"] == ("132", "")
    assert found["shared memory a block"] == ("66.56 KB", "")
    assert found["LSU pipe"] == found["heavy FMA pipe"] == ("n/a", "not in this report")


def test_a_compute_bound_kernel_is_judged_by_its_tensor_pipe():
    found = lines(parse_raw(raw_page())[0], COMPUTE_BOUND)
    assert found["tensor pipe"] == ("11.00 %", "LOOK: below 75")
    assert found["DRAM of peak"] == ("84.50 %", "")


def test_another_name_for_a_metric_counts():
    launch = Launch("k", {"sass__inst_executed_local_loads": 3.0})
    assert lines(launch, MEMORY_BOUND)["local loads"] == ("3", "LOOK: above 0")


def test_a_report_without_anything_says_so_everywhere():
    found = lines(Launch("k", {}), MEMORY_BOUND)
    assert set(found.values()) == {("n/a", "not in this report")}
    assert traffic([Launch("k", {})], MEMORY_BOUND).value == "n/a"


def test_traffic_of_a_call_is_that_of_all_its_kernels():
    line = traffic(parse_raw(raw_page()), MEMORY_BOUND)
    assert line.value == "35.60 / 35.40 MB = 1.006" and line.verdict == "ok"
    line = traffic(parse_raw(raw_page()), Work(30_000_000, 0))
    assert line.verdict == "LOOK: above 1.02"


def test_the_command_watches_the_call_after_the_warm_up():
    symbols = ("moe_down_mma_n8", "moe_combine_fp32", "moe_combine_fp32")
    driven = ("moe_down", "--tokens", "4", "--model", "gpt-oss-20b")
    command = watch_command("/opt/ncu", Path("x.ncu-rep"), symbols, driven)
    assert command[0] == "/opt/ncu" and command[-8:] == [
        *(sys.executable, "-m", "haast.bench.drive"),
        *driven,
    ]
    options = dict(zip(command[1:-8:2], command[2:-8:2], strict=False))
    assert options["--set"] == "full" and options["--clock-control"] == "none"
    names = "regex:^(moe_down_mma_n8|moe_combine_fp32)$"
    assert command[command.index("--kernel-name") + 1] == names
    assert command[command.index("--launch-skip") + 1] == str(3 * WARMUP)
    assert command[command.index("--launch-count") + 1] == "3"
    assert command[command.index("--export") + 1] == "x.ncu-rep"


def test_reports_end_as_ncu_ends_them():
    assert report_path(Path("a/moe_up-4")) == Path("a/moe_up-4.ncu-rep")
    assert report_path(Path("v1.2")) == Path("v1.2.ncu-rep")
    assert report_path(Path("x.ncu-rep")) == Path("x.ncu-rep")


def script(tmp_path, text):
    path = tmp_path / "fake"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "text, words",
    [
        ("echo '==ERROR== ERR_NVGPUCTRPERM - no permission'; exit 1", "ERR_NVGPUCTRPERM"),
        ("echo 'haast: error: out of GPU memory' >&2; exit 2", "out of GPU memory"),
        ("echo '{}'; echo '==WARNING== No kernels were profiled.'", "No kernels were profiled"),
        ("exit 3", "it failed without a word"),
        ("echo all is well", "it failed without a word"),
    ],
)
def test_why_there_is_no_report(tmp_path, text, words):
    with pytest.raises(BenchError, match=words) as error:
        watch([script(tmp_path, text)])
    assert "\n" not in str(error.value)


def test_the_driven_program_says_what_had_to_move(tmp_path):
    text = """echo '==PROF== Connected'; echo '{"nbytes": 12, "flop": 34}'; echo '==PROF== bye'"""
    assert watch([script(tmp_path, text)]) == Work(12, 34)


def test_a_report_that_cannot_be_read(tmp_path):
    fake = script(tmp_path, "echo '==ERROR== no such file'; exit 1")
    with pytest.raises(BenchError, match="ncu: ==ERROR== no such file"):
        read_report(fake, tmp_path / "gone.ncu-rep")

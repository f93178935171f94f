"""The doctor: every line in both states, with what to do, and the exit code."""

import shutil
import socket
from types import SimpleNamespace

import pytest
import torch

from haast.__main__ import main
from haast.cuda.context import KernelError
from haast.doctor import fits, gpu, host
from haast.doctor.finding import Finding, bad, note, ok
from haast.model.locate import demo_folder

GB = 10**9


@pytest.fixture
def card(monkeypatch):
    """card(...) makes torch see one H100, or something a little different."""

    def see(capability=(9, 0), free=79 * GB, driver="580.159.04", loads=lambda device: (13, 70)):
        monkeypatch.setattr("torch.version.cuda", "13.0")
        properties = SimpleNamespace(total_memory=80 * GB, multi_processor_count=132)
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: 2,
            "get_device_name": lambda device: "NVIDIA H100",
            "get_device_capability": lambda device: capability,
            "get_device_properties": lambda device: properties,
            "mem_get_info": lambda device: (free, 80 * GB),
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(gpu, "card_now", lambda: SimpleNamespace(driver=driver))
        monkeypatch.setattr(gpu, "count_loading", loads)
        monkeypatch.setattr(gpu, "why_not_built", lambda: None)
        monkeypatch.setattr("haast.ops.hopper._why_not_built", lambda: None)

    return see


@pytest.fixture
def doctor(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *words])
        assert (captured := capsys.readouterr()).err == ""
        return ended.value.code, captured.out.splitlines()

    return run


def states(findings):
    return {finding.what: finding.state for finding in findings}


def test_a_machine_that_is_ready(card, doctor):
    card()
    code, lines = doctor("--port", "18765")
    assert code == 0 and lines[-1] == "ready to run with its kernels"
    text = "\n".join(lines)
    assert "+ driver        580.159.04, torch" in text and "NVIDIA H100 and 1 more" in text
    assert "70 in 13 cubins, all load" in text and "79.0 GB free of 80.0 GB" in text
    assert "on the GPU 13.8 GB of weights fit" in text and "+ tokenizer     bundled, 200," in text
    assert len(lines) <= 24 and not any(line.startswith("x") for line in lines), "one screen"


@pytest.mark.parametrize(
    "seen, what, text, remedy",
    [
        ({"driver": "570.86.1"}, "driver", "570.86.1", "driver 580 or newer"),
        ({"capability": (8, 0)}, "capability", "capability 8.0", "kernels need 9.0"),
        ({"capability": (10, 0)}, "capability", "capability 10.0", "kernels need 9.0"),
    ],
)
def test_a_gpu_that_will_not_do(card, doctor, monkeypatch, seen, what, text, remedy):
    card(**seen)
    monkeypatch.setattr(host, "host_findings", lambda port: [])
    (finding,) = [f for f in gpu.gpu_findings() if f.state == "bad"]
    assert finding.what == what and text in finding.text and remedy in finding.remedy
    code, lines = doctor()
    assert code == 1 and lines[-1] == f"not ready: {what}"


def test_a_driver_that_nobody_tells_of(card):
    card(driver=None)
    found = gpu.gpu_findings()[0]
    assert (found.what, found.state) == ("driver", "note") and "if all kernels load" in found.remedy


def test_kernels_that_do_not_load_or_are_not_there(card, monkeypatch):
    def fail(device):
        raise KernelError("route.cubin does not load: CUDA_ERROR_NO_BINARY_FOR_GPU")

    card(loads=fail)
    (kernels,) = [f for f in gpu.gpu_findings() if f.what == "kernels"]
    assert kernels.state == "bad" and kernels.text.startswith("route.cubin does not load")
    assert kernels.remedy == "build them again: python -m haast.cuda.build"
    why = "kernels are not built (nvcc needs g++); run: python -m haast.cuda.build"
    monkeypatch.setattr(gpu, "why_not_built", lambda: why)
    (kernels,) = [f for f in gpu.gpu_findings() if f.what == "kernels"]
    assert (kernels.state, kernels.text) == ("bad", "kernels are not built (nvcc needs g++)")
    assert "python -m haast.cuda.build" in kernels.remedy


def test_memory_that_others_hold(card, doctor, monkeypatch):
    card(free=14 * GB)
    monkeypatch.setattr(host, "host_findings", lambda port: [])
    memory = gpu.gpu_findings()[-1]
    assert memory.state == "note" and "nvidia-smi names the processes" in memory.remedy
    code, lines = doctor()
    assert code == 1 and lines[-1] == "not ready: gpt-oss-20b", "a GPU without room for any model"
    card(free=60 * GB)
    assert states(fits.fit_findings("gpu")) == {"gpt-oss-20b": "note", "gpt-oss-120b": "note"}


def test_how_many_requests_fit(card, monkeypatch):
    card()
    monkeypatch.setattr(fits, "locate_model", lambda path: path)
    small, large = fits.fit_findings("gpu")
    assert (small.state, large.state) == ("ok", "ok")
    assert small.text.endswith("requests of 8,192 at a time") and "13.8 GB of weights" in small.text
    at_once = [int(f.text.split(": ")[1].split()[0]) for f in (small, large)]
    assert 150 < at_once[0] <= 256 and 1 <= at_once[1] < 20, large.text
    card(free=60 * GB)
    assert [f.text for f in fits.fit_findings("gpu")][1] == "does not fit"


def test_weights_that_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("haast.engine.footprint.free_memory", lambda device: 40 * GB)
    small, large = fits.fit_findings("cpu")
    assert small.state == "note" and small.remedy.endswith("hf download openai/gpt-oss-20b")
    assert small.text.startswith("on the CPU 13.8 GB of weights fit")
    assert large.text == "does not fit" and "the weights take 65." in large.remedy


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu(doctor):
    code, lines = doctor()
    assert code == 1 and lines[-1].startswith("not ready: GPU")
    assert lines[0].startswith("x GPU") and "models run on the CPU, slowly: haast" in lines[1]
    code, lines = doctor("--devices", "cpu")
    assert code == 0 and lines[-1] == "ready to run on the CPU"
    assert not any(" GPU " in line and line.startswith("x") for line in lines)


def test_torch_that_sees_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    text, remedy = gpu.why_no_gpu()
    assert text.endswith("sees none") and "CUDA_VISIBLE_DEVICES" in remedy
    monkeypatch.setattr("torch.version.cuda", None)
    assert gpu.why_no_gpu()[0].endswith("is a CPU build")


def test_damaged_files_of_the_package(tmp_path):
    assert host.demo(demo_folder()).state == "ok"
    folder = shutil.copytree(demo_folder(), tmp_path / "model")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    found = host.demo(folder)
    assert found.state == "bad" and "model.safetensors" in found.text and "pip" in found.remedy
    (tmp_path / "tokenizer.json").write_text("{")
    found = host.tokenizer(tmp_path / "tokenizer.json")
    assert found.state == "bad" and "cannot read tokenizer" in found.text


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = host.free_port(port)
        assert (found.what, found.state, found.text) == (f"port {port}", "note", "taken")
        assert found.remedy == "serve on another: haast serve --port"
    assert host.free_port(port) == ok(f"port {port}", "free")


def test_ncu(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: "/opt/ncu")
    assert host.ncu() == ok("ncu", "/opt/ncu")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert host.ncu().state == "note" and "comes with the CUDA toolkit" in host.ncu().remedy


def test_one_bad_line_is_enough(doctor, monkeypatch):
    found = [ok("a", "fine"), note("long name", "so so", "or not"), bad("b", "no", "do this")]
    monkeypatch.setattr("haast.cli.doctor._findings", lambda devices, port: found)
    code, lines = doctor()
    assert code == 1 and lines == [
        "+ a          fine",
        "- long name  so so",
        "             > or not",
        "x b          no",
        "             > do this",
        "not ready: b",
    ]
    found.pop()
    assert doctor()[0] == 0 and Finding("a", "ok", "fine") in found

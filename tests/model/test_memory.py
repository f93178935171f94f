"""Peak memory of writing and loading, measured in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from .helpers import write_config

SIZES = {
    "hidden_size": 768,
    "intermediate_size": 352,
    "num_hidden_layers": 2,
    "layer_types": ["full_attention"] * 2,
}
EXPERT_ELEMENTS = 2 * 352 * 768
NUM_EXPERTS = 16
UP_BYTES = NUM_EXPERTS * (EXPERT_ELEMENTS // 2 + EXPERT_ELEMENTS // 32)
"""The largest role: 5 MB of a checkpoint of 20 MB, 51 MB in bf16"""
NOISE = 2 << 20
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from haast.model.checkpoint import open_checkpoint
from haast.model.weights import load_parameters
from haast.model import write_checkpoint
from haast.model.write_checkpoint import make_checkpoint

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))

def peak(action):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    return action(), status("VmHWM") - before

torch.set_num_threads(1)
# The tokenizer is the same 0.1 GB whatever the weights: left out.
write_checkpoint._write_tokenizer = lambda out: None
folder = Path(sys.argv[1])
peaks = {}
for like in ("warm", "measured"):
    for layout, encodings in {"hf": ("mxfp4", "bfloat16"), "bf16": ("mxfp4",)}.items():
        target = folder / like / layout
        write = lambda: make_checkpoint(f"{folder / like}.json", target, layout=layout)
        peaks[f"write {layout}"] = peak(write)[1]
        for encoding in encodings:
            checkpoint = open_checkpoint(target)
            for swizzled in (False, True) if (layout, encoding) == ("hf", "mxfp4") else (False,):
                load = lambda: load_parameters(
                    checkpoint, encoding, torch.device("cpu"), is_swizzled=swizzled
                )
                parameters, used = peak(load)
                name = "swizzled" if swizzled else encoding
                peaks[f"load {layout} {name}"] = used - parameters.nbytes
                del parameters
print(json.dumps(peaks))
"""


@pytest.fixture(scope="module")
def peaks(tmp_path_factory):
    """Bytes beyond what was there before, and for loading beyond the parameters."""
    folder = tmp_path_factory.mktemp("memory")
    write_config(folder / "warm.json", num_local_experts=2, **SIZES)
    write_config(folder / "measured.json", num_local_experts=NUM_EXPERTS, **SIZES)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    return json.loads(run.stdout)


def test_memory_is_bounded(peaks):
    """Bytes that stay bytes need nothing, conversions one expert, and writing or another order
    one role besides.
    """
    one_expert = 24 * EXPERT_ELEMENTS + NOISE
    assert peaks["load hf mxfp4"] < NOISE
    assert peaks["load hf swizzled"] < UP_BYTES + 4 * EXPERT_ELEMENTS + NOISE
    assert peaks["load hf bfloat16"] < one_expert
    assert peaks["load bf16 mxfp4"] < one_expert
    assert peaks["write hf"] < UP_BYTES + one_expert
    assert peaks["write bf16"] < UP_BYTES + one_expert

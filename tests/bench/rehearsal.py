"""Benches without a GPU: the same code on the CPU, with a timer that makes each call once."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import torch

from haast.bench.machine import Card
from haast.bench.rooflines import Ceilings
from haast.bench.timing import Timing
from haast.model.locate import demo_folder
from haast.ops import OPS, REFERENCE, pin

CEILINGS = Ceilings(3.1, "triton", 2.9, 798.0)
"""The round figures that the targets are computed with"""
US = {"up": 20.0, "down": 12.0, "route": 3.0, "mxfp4": 18.0, "bf16": 54.0}


def write_small_model(folder):
    """A config.json whose sizes all differ: H 64, I 96, E 6, A 2."""
    fields = json.loads((demo_folder() / "config.json").read_text())
    fields |= {"hidden_size": 64, "intermediate_size": 96, "num_local_experts": 6}
    fields |= {"num_experts_per_tok": 2, "experts_per_token": 2}
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@contextmanager
def rehearse(monkeypatch):
    """Everything runs on the CPU with references and takes the time that US says, or 40 us.

    Yields name -> results of the calls of the last round.
    """
    results = {}

    def time_together(variants, warmup, replays):
        results.clear()
        results.update({name: [call() for call in calls] for name, calls in variants.items()})
        timings = {
            name: Timing(US.get(name, 40.0), 1.0, 99.0, len(calls), replays)
            for name, calls in variants.items()
        }
        return timings, Card("580", 1980.0, 2619.0, 55.0, 600.0)

    for module in ("moe", "grouped", "attention", "ops", "head"):
        monkeypatch.setattr(f"haast.bench.{module}.time_together", time_together)
        monkeypatch.setattr(f"haast.bench.{module}.hopper", lambda: torch.device("cpu"))
    monkeypatch.setattr("haast.bench.machine.hopper", lambda: torch.device("cpu"))
    monkeypatch.setattr("haast.bench.moe.free_bytes", lambda: 1 << 40)
    monkeypatch.setattr("haast.bench.rooflines.measure_ceilings", lambda: CEILINGS)
    card = SimpleNamespace(name="NVIDIA Test", L2_cache_size=20_000, uuid="0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    with pin({op.name: REFERENCE for op in OPS}):
        yield results

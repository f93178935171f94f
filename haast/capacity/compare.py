"""The simulator against runs that were measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from haast.bench.cases import read_config
from haast.capacity.choices import percentile
from haast.capacity.costs import Costs
from haast.capacity.curves import REFERENCE, Curves
from haast.capacity.simulate import Limits, Replica, Request
from haast.config import ModelConfig

LIMITS = Limits(batch=256, step_tokens=8192, kv_tokens=2_000_000)
"""Of the measured servers; none of the runs was short of memory"""
Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One level of `haast bench serve`: names of numbers -> measured and simulated."""

    gpu: str
    concurrency: int
    numbers: dict[str, tuple[float, float]]

    def error(self, name: str) -> float:
        """Simulated over measured, less one."""
        measured, simulated = self.numbers[name]
        return simulated / measured - 1


def runs(serve: list[Record], decode: list[Record], prefill: list[Record]) -> Iterator[Run]:
    """Every measured level of which there are curves of the same card, commit and checkpoint."""
    model = read_config(REFERENCE)
    for record in serve:
        steps, prompts = _same(record, decode), _same(record, prefill)
        if steps and prompts:
            curves = Curves.of_records(steps[-1], prompts[-1])
            for row in record["rows"]:
                yield _run(curves, model, record, row)


def _same(record: Record, others: list[Record]) -> list[Record]:
    keys = ("gpu", "commit", "model")
    return [other for other in others if all(other[key] == record[key] for key in keys)]


def _run(curves: Curves, model: ModelConfig, record: Record, row: Record) -> Run:
    replica = Replica(Costs(curves, model, model), LIMITS)
    size = (record["input_len"], record["output_len"])
    replica.run((Request(0.0, *size) for _ in range(row["requests"])), row["concurrency"])
    ttft_s = [request.ttft_s for request in replica.ended]
    tpot_s = [request.tpot_s for request in replica.ended]
    measured = row["ttft_s"], row["tpot_s"]
    last_s = max(request.end_s for request in replica.ended)
    numbers = {
        "requests/s": (row["requests_per_s"], row["requests"] / last_s),
        "TTFT p50": (measured[0]["p50"], percentile(ttft_s, 50)),
        "TTFT p99": (measured[0]["p99"], percentile(ttft_s, 99)),
        "ms a token p50": (measured[1]["p50"], percentile(tpot_s, 50)),
        "ms a token p99": (measured[1]["p99"], percentile(tpot_s, 99)),
    }
    return Run(record["gpu"], row["concurrency"], numbers)

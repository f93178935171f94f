"""JSON results of benches -> named numbers, larger = better."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from haast.baseline.errors import UnmeasuredError

SHARE = "%"
"""Unit of shares of the floor, which carry over to other clocks and days; all others do not"""


@dataclass(frozen=True)
class Metric:
    """What one run says of one thing."""

    name: str
    value: float
    unit: str
    figure: str
    """for people, such as `497 tokens/s`"""


def metrics_of(result: Mapping[str, Any]) -> dict[str, Metric]:
    """Every number of a bench's document that is compared.

    Raises UnmeasuredError if it is of no bench that we know, or a number is missing or none.
    """
    bench = result.get("bench")
    reader = READERS.get(str(bench))
    if reader is None:
        raise UnmeasuredError(f"no bench '{bench}' has numbers to compare")
    try:
        found = list(reader(result))
    except (KeyError, TypeError) as error:
        raise UnmeasuredError(f"bench {bench}: not what it prints ({error!r})") from None
    for metric in found:
        if not (math.isfinite(metric.value) and metric.value > 0):
            raise UnmeasuredError(f"{metric.name} is {metric.value}")
    return {metric.name: metric for metric in found}


def values_of(metrics: Iterable[Metric]) -> dict[str, list[float]]:
    """Metric -> its value in each run."""
    found: dict[str, list[float]] = {}
    for metric in metrics:
        found.setdefault(metric.name, []).append(metric.value)
    return found


def _share(name: str, row: Mapping[str, Any], figure: str) -> Metric:
    return Metric(name, float(row["percent_of_floor"]), SHARE, figure)


def _absolute(name: str, value: float, unit: str) -> Metric:
    return Metric(name, float(value), unit, f"{value:,.0f} {unit}")


def _grouped(result: Mapping[str, Any]) -> Iterable[Metric]:
    figure = f"{result['mxfp4']['median_us']:.1f} us"
    yield _share(f"grouped_{result['which']}", result, figure)


def _moe(result: Mapping[str, Any]) -> Iterable[Metric]:
    skewed = "" if result["routing"] == "uniform" else f"{result['routing']}_"
    for row in result["rows"]:
        yield _share(f"moe_{skewed}t{row['tokens']}", row, f"{row['sum_us']:.1f} us")


def _decode(result: Mapping[str, Any]) -> Iterable[Metric]:
    for row in result["rows"]:
        yield _share(f"decode_b{row['batch']}", row, f"{row['tokens_per_s']:,.0f} tokens/s")


def _prefill(result: Mapping[str, Any]) -> Iterable[Metric]:
    for row in result["rows"]:
        is_one = row["requests"] == 1
        name = f"prefill_{'' if is_one else str(row['requests']) + 'x'}{row['input']}"
        speed = f"{row['tokens_per_s']:,.0f} tokens/s"
        yield _share(name, row, f"{row['ttft_s'] * 1e3:.1f} ms" if is_one else speed)


def _attention(result: Mapping[str, Any]) -> Iterable[Metric]:
    for row in result["rows"]:
        who = "prompt" if row["batch"] is None else f"b{row['batch']}"
        layer = "full" if row["window"] is None else f"w{row['window']}"
        yield _share(f"attention_{who}_{row['context']}_{layer}", row, f"{row['us']:.1f} us")


def _ops(result: Mapping[str, Any]) -> Iterable[Metric]:
    for row in result["rows"]:
        yield Metric(
            f"{row['op']}_t{row['tokens']}", 1e6 / row["us"], "calls/s", f"{row['us']:.2f} us"
        )


def _throughput(result: Mapping[str, Any]) -> Iterable[Metric]:
    yield _absolute("throughput", result["output_tokens_per_s"], "tokens/s")


def _serve(result: Mapping[str, Any]) -> Iterable[Metric]:
    for row in result["rows"]:
        yield _absolute(f"serve_c{row['concurrency']}", row["output_tokens_per_s"], "tokens/s")


READERS: dict[str, Callable[[Mapping[str, Any]], Iterable[Metric]]] = {
    "grouped": _grouped,
    "moe": _moe,
    "decode": _decode,
    "cpu-decode": _decode,
    "prefill": _prefill,
    "attention": _attention,
    "ops": _ops,
    "throughput": _throughput,
    "serve": _serve,
}

"""The tables of docs/scale.md, from arithmetic and from what `haast plan` simulates.

python tools/make_scale.py
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import make_curves

from haast.bench.cases import read_config
from haast.capacity.choices import Latency, Load, most_per_s, under
from haast.capacity.compare import runs
from haast.capacity.costs import BF16, Costs
from haast.capacity.curves import MODELS, measured
from haast.capacity.memory import GPU_BYTES, room
from haast.capacity.simulate import Replica
from haast.config import ConfigError

PAGE = Path(__file__).parents[1] / "docs/scale.md"
COUNT = 8
SIZE = (1000, 500)
DIVISIONS = (1, 2, 4, 8)
Cells = tuple[object, ...]


def memory() -> Iterator[Cells]:
    """What a GPU holds of a replica's weights, and tokens of which the replica keeps keys."""
    yield ("model", "GPUs a replica", "weights a GPU", *(f"tokens, {kind}" for kind in GPU_BYTES))
    for model in MODELS:
        config = read_config(model)
        for num_gpus in DIVISIONS:
            weights, tokens = "", []
            for kind in GPU_BYTES:
                try:
                    space = room(config, kind, num_gpus, config.max_length)
                    weights = f"{space.weight_bytes / 1e9:.1f} GB"
                    tokens.append(f"{space.limits.kv_tokens:,}")
                except ConfigError:
                    tokens.append("less than one request of full length")
            yield (model, num_gpus, weights, *tokens)


def interconnect() -> Iterator[Cells]:
    """All-reduces of a step, and what they take of it."""
    yield ("model", "tokens in a step", "bytes each", *(f"{n} GPUs" for n in DIVISIONS[1:]))
    for model in MODELS:
        curves, config = measured().base("H100", model), read_config(model)
        reference = read_config(curves.model)
        for tokens in (1, 64, 256, 8192):
            shares = []
            for num_gpus in DIVISIONS[1:]:
                costs = Costs(curves, reference, config, num_gpus)
                is_prompt = tokens > 256
                step_s = costs.prefill_s(tokens, 512) if is_prompt else costs.decode_s(tokens, 1088)
                passed_s = costs.passed_s(tokens)
                shares.append(f"{1e3 * passed_s:.2f} ms, {passed_s / step_s:.0%}")
            nbytes = tokens * config.hidden_size * BF16
            yield (model, f"{tokens:,}", f"{nbytes / 1e3:,.0f} kB", *shares)


def capacity() -> Iterator[Cells]:
    """What 8 GPUs do, and how long it takes when they do half of that."""
    latencies = ("first token ms, p50 (p99)", "ms a token, p50 (p99)")
    yield ("model", "GPUs", "GPUs a replica", "most requests/s", *latencies)
    for model in MODELS:
        for kind in GPU_BYTES:
            for num_gpus in DIVISIONS:
                most, told = _at_half(model, kind, num_gpus)
                yield (
                    model,
                    f"{COUNT}x{kind}",
                    num_gpus,
                    f"{most:.0f}",
                    f"{1e3 * told.ttft_p50_s:.0f} ({1e3 * told.ttft_p99_s:.0f})",
                    f"{1e3 * told.tpot_p50_s:.1f} ({1e3 * told.tpot_p99_s:.1f})",
                )


def _at_half(model: str, kind: str, num_gpus: int) -> tuple[float, Latency]:
    """The most requests a second of all GPUs, and latencies under half of them."""
    curves, config = measured().base(kind, model), read_config(model)
    costs = Costs(curves, read_config(curves.model), config, num_gpus)
    limits = room(config, kind, num_gpus, sum(SIZE)).limits
    num_replicas = COUNT // num_gpus
    most = num_replicas * most_per_s(costs, limits, Load(0.0, *SIZE))
    half = Load(most / 2, *SIZE)
    return most, under(half, num_replicas, lambda: Replica(costs, limits))


def errors() -> Iterator[Cells]:
    """The simulator against every measured level of `haast bench serve`."""
    compared = list(runs(*map(make_curves.records, ("serve", "decode", "prefill"))))
    yield ("GPU", "at once", *compared[0].numbers)
    for run in compared:
        told = []
        for name, (real, simulated) in run.numbers.items():
            scale = 1.0 if name == "requests/s" else 1e3
            digits = 2 if name.startswith("ms a token") else 1
            both = f"{scale * real:,.{digits}f} / {scale * simulated:,.{digits}f}"
            told.append(f"{both}, {run.error(name):+.0%}")
        yield (run.gpu, run.concurrency, *told)


TABLES: dict[str, Callable[[], Iterator[Cells]]] = {
    "memory": memory,
    "interconnect": interconnect,
    "capacity": capacity,
    "errors": errors,
}


def table(rows: Iterator[Cells]) -> str:
    """In Markdown; the first row is the heading."""
    heading, *others = ("| " + " | ".join(map(str, cells)) + " |" for cells in rows)
    rule = "|" + "---|" * (heading.count("|") - 1)
    return "\n".join([heading, rule, *others, ""])


def with_tables(text: str) -> str:
    """The page with each table between its marks."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: tools/make_scale.py -->\n", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        text, count = pattern.subn(begin + table(make()).replace("\\", r"\\") + end, text)
        assert count == 1, name
    return text


def main() -> None:
    make_curves.main()
    PAGE.write_text(with_tables(PAGE.read_text()))


if __name__ == "__main__":
    main()

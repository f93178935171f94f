"""What `haast plan` prints: the choices, and how far to trust them."""

from collections.abc import Iterator, Sequence

from haast.bench.cases import read_config
from haast.capacity.choices import Choice, Load, choices
from haast.capacity.costs import ALL_REDUCE_S, Costs
from haast.capacity.curves import measured
from haast.capacity.memory import GPU_BYTES

HEADER = (
    "GPUs a replica",
    "replicas",
    "weights a GPU",
    "KV tokens",
    "most requests/s",
    "of that",
    "first token ms, p50 (p99)",
    "ms a token, p50 (p99)",
)
Row = tuple[str, ...]


def computed(model: str, kind: str, count: int, load: Load) -> list[Choice]:
    """All ways to serve a model on `count` GPUs of a kind."""
    curves = measured().base(kind, model)
    reference, served = read_config(curves.model), read_config(model)
    return choices(lambda num_gpus: Costs(curves, reference, served, num_gpus), kind, count, load)


def row(choice: Choice, load: Load) -> Row:
    """A choice in the columns of HEADER."""
    division = (str(choice.num_gpus), str(choice.num_replicas))
    if choice.room is None:
        return (*division, "does not fit", *[""] * (len(HEADER) - 3))
    latency = choice.latency
    told: Row = ("cannot keep up", "")
    if latency is not None:
        told = (
            f"{1e3 * latency.ttft_p50_s:.0f} ({1e3 * latency.ttft_p99_s:.0f})",
            f"{1e3 * latency.tpot_p50_s:.1f} ({1e3 * latency.tpot_p99_s:.1f})",
        )
    return (
        *division,
        f"{choice.room.weight_bytes / 1e9:.1f} GB",
        f"{choice.room.limits.kv_tokens:,}",
        f"{choice.most_per_s:.1f}",
        f"{load.per_s / choice.most_per_s:.0%}",
        *told,
    )


def lines(rows: Sequence[Row]) -> Iterator[str]:
    """A table in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        yield "  ".join(map(str.rjust, cells, widths)).rstrip()


def trust(model: str, kind: str, found: Sequence[Choice]) -> Iterator[str]:
    """What was measured, what was not, and how wrong the simulator was where it could be seen."""
    told = measured()
    base = told.base(kind, model)
    yield (
        f"Measured: {base.model} on one {base.gpu} ({base.source}). "
        "Against measured runs of the server the simulator is off by (median, worst): "
        + ", ".join(f"{name} {half:.0%}, {most:.0%}" for name, (half, most) in told.errors.items())
        + "."
    )
    if model != base.model:
        yield (
            f"Not measured: {model}. It is taken to reach the same share of the GPU's ceilings as "
            f"{base.model}, with each token's experts drawn evenly."
        )
    if any(choice.num_gpus > 1 for choice in found):
        yield (
            "Not measured: several GPUs a replica. Weights, keys and prompts are divided evenly, a "
            f"layer's latency is not, and two all-reduces a layer take {1e6 * ALL_REDUCE_S:.0f} us "
            "and their bytes over NVLink."
        )
    yield (
        f"{GPU_BYTES[kind] >> 30} GiB free a GPU, 256 requests at a time, bf16 keys and values, no "
        "prefix found cached, requests divided at random."
    )

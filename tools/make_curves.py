"""The curves that `haast plan` computes with, and its errors, from bench/results.

python tools/make_curves.py
"""

import json
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from haast.capacity.compare import runs
from haast.capacity.curves import FILE, MODELS, Curves, model_of
from haast.capacity.memory import GPU_BYTES

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "haast" / FILE


def records(name: str) -> list[dict[str, Any]]:
    """All lines of a bench's results."""
    lines = (ROOT / "bench/results" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def document() -> str:
    """Of each kind of card the newest curves of each model; errors, median and worst."""
    decode, prefill = records("decode"), records("prefill")
    curves = []
    for kind in GPU_BYTES:
        for model in MODELS:
            steps, prompts = (_of(kind, model, bench) for bench in (decode, prefill))
            if steps and prompts:
                found = Curves.of_records(steps[-1], prompts[-1])
                curves.append({"kind": kind, **asdict(found)})
    compared = list(runs(records("serve"), decode, prefill))
    names = compared[0].numbers
    errors = {}
    for name in names:
        off = [abs(run.error(name)) for run in compared]
        errors[name] = [round(median(off), 3), round(max(off), 3)]
    return json.dumps({"curves": curves, "errors": errors}, indent=1) + "\n"


def _of(kind: str, model: str, bench: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of one card of a kind, with experts as published and keys in bfloat16."""
    return [
        record
        for record in bench
        if kind in record["gpu"]
        and model_of(record) == model
        and record["encoding"] == "mxfp4"
        and record.get("cache_format", "bfloat16") == "bfloat16"
        and "," not in str(record.get("devices", ""))
    ]


def main() -> None:
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(document())


if __name__ == "__main__":
    main()

"""The curves that `haast plan` computes with, and its errors, from bench/results.

python tools/make_curves.py
"""

import json
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from haast.capacity.compare import runs
from haast.capacity.curves import FILE, Curves, kind_of
from haast.capacity.memory import GPU_BYTES

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "haast" / FILE


def records(name: str) -> list[dict[str, Any]]:
    """All lines of a bench's results."""
    lines = (ROOT / "bench/results" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def document() -> str:
    """Of each kind of card the newest curves of gpt-oss-20b; errors, median and worst."""
    decode, prefill = records("decode"), records("prefill")
    curves = {}
    for kind in GPU_BYTES:
        newest = [
            [record for record in of if kind_of(record["gpu"], GPU_BYTES) == kind][-1]
            for of in (decode, prefill)
        ]
        curves[kind] = asdict(Curves.of_records(*newest))
    compared = list(runs(records("serve"), decode, prefill))
    names = compared[0].numbers
    errors = {}
    for name in names:
        off = [abs(run.error(name)) for run in compared]
        errors[name] = [round(median(off), 3), round(max(off), 3)]
    return json.dumps({"curves": curves, "errors": errors}, indent=1) + "\n"


def main() -> None:
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(document())


if __name__ == "__main__":
    main()

"""README's table of speeds, from the newest lines of bench/results.

`make tables`, or: python tools/make_tables.py
"""

import json
from pathlib import Path
from textwrap import fill
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- speeds: tools/make_tables.py -->\n", "<!-- end of speeds -->\n"


def newest(name: str) -> dict[str, Any]:
    """The last line of a bench's results."""
    lines = (ROOT / "bench/results" / f"{name}.jsonl").read_text().splitlines()
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def speeds() -> str:
    """Decode and prefill of one model, and on what that was measured."""
    decode, prefill = newest("decode"), newest("prefill")
    rows = [
        "| what | speed | of the floor |",
        "|---|---|---|",
        *(
            f"| decode, batch {row['batch']} | {row['tokens_per_s']:,.0f} tokens/s "
            f"| {row['percent_of_floor']:.0f} % |"
            for row in decode["rows"]
        ),
        *(_prefill_row(row) for row in prefill["rows"]),
    ]
    where = (
        f"{decode['model']}, {decode['encoding']} experts, {decode['gpu']}, {decode['date']}; "
        f"{decode['input']} tokens in and {decode['output']} out. The floor is bytes and FLOP at "
        f"{decode['ceilings']['read_tb_per_s']:.2f} TB/s and "
        f"{decode['ceilings']['matmul_tflop_per_s']:.0f} TFLOP/s, measured in the same run."
    )
    return "\n".join([*rows, "", fill(where, 100), ""])


def _prefill_row(row: dict[str, Any]) -> str:
    share = f"{row['percent_of_floor']:.0f} %"
    if row["requests"] == 1:
        return f"| first token, prompt of {row['input']} | {row['ttft_s'] * 1e3:.1f} ms | {share} |"
    many = f"{row['requests']} prompts of {row['input']} at once"
    return f"| {many} | {row['tokens_per_s']:,.0f} tokens/s | {share} |"


def with_tables(text: str) -> str:
    """README with what the results say between the marks."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + speeds() + END + rest.split(END)[1]


def main() -> None:
    README.write_text(with_tables(README.read_text()))


if __name__ == "__main__":
    main()

"""Which CUDA kernels run, and that they are those of the sources."""

from haast.baseline.running import Result
from haast.cuda.build import build, find_toolchain
from haast.errors import HaastError


def kernels_of(result: Result | None) -> dict[str, str]:
    """Of `haast ops --json`: `moe_up at 64` -> the CUDA kernels of that call, in order."""
    tables = [table for op in (result or {}).get("ops", ()) for table in op["tables"]]
    return {
        f"{table['op']} at {table['num_tokens']}": " -> ".join(
            next((verdict["symbols"] for verdict in table["verdicts"] if verdict["runs"]), ())
        )
        for table in tables
    }


def changed_kernels(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """One line for each call that launches others than it did."""
    return [
        f"{call}: {before.get(call) or 'nothing'}, now {now.get(call) or 'nothing'}"
        for call in dict.fromkeys([*before, *now])
        if before and now and before.get(call) != now.get(call)
    ]


def build_kernels() -> str | None:
    """Compile what is older than its source; why nothing was, where there is no compiler.

    Otherwise the kernels of another commit would be measured. Raises HaastError if a source does
    not compile.
    """
    try:
        find_toolchain()
    except HaastError as error:
        return str(error)
    build()
    return None

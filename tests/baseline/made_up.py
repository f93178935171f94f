"""Results that nobody measured, and baselines of them."""

from haast.baseline.document import Baseline, Measured
from haast.baseline.errors import UnmeasuredError
from haast.baseline.known_good import Case
from haast.baseline.machine import Machine

COHERENCE = Case("coherence", ("coherence", "--json"))
DECODE = Case("decode", ("bench", "decode", "--batch", "1,64"))
PREFILL = Case("prefill", ("bench", "prefill"))
KERNELS = Case("kernels", ("ops", "--json"))
MACHINE = Machine("AMD Test", 4, "NVIDIA Test", "580.1", "2.11.0", "3.6.0", "3.11.7", "13.5.37")
NOISE = (0.0, 0.4, -0.4)
"""Of successive runs, in % of themselves"""


def coherence(passed=True, names=("exact answers", "answered")):
    checks = [
        {"name": name, "value": 1.0 if passed else 0.5, "limit": 0.9, "is_ceiling": False}
        | {"passed": passed}
        for name in names
    ]
    return {"passed": passed, "checks": checks, "skipped": {}, "warning": None}


def decode(**shares):
    """decode(b1=59, b64=73): such shares of the floor."""
    rows = [
        {"batch": int(name[1:]), "percent_of_floor": share, "tokens_per_s": 8.0 * share}
        for name, share in shares.items()
    ]
    return {"bench": "decode", "rows": rows}


def prefill(share):
    row = {"input": 1024, "requests": 1, "percent_of_floor": share, "ttft_s": 0.9 / share}
    return {"bench": "prefill", "rows": [row | {"tokens_per_s": 10.0}]}


def kernels(symbol="moe_mma"):
    verdicts = [
        {"name": "slow", "runs": False, "symbols": ["x"]},
        {"name": "fast", "runs": True, "symbols": ["moe_gather", symbol]},
    ]
    tables = [{"op": "moe_up", "num_tokens": 64, "verdicts": verdicts}]
    return {"model": "m", "ops": [{"op": "moe_up", "tables": tables}, {"op": "x", "tables": []}]}


def noisy(*percents, at=60.0):
    return [at * (1 + percent / 100) for percent in percents]


def baseline(name="made", kind="gpu", **changes):
    """decode_b1 at 60, decode_b64 at 70, prefill_1024 at 50, with a little noise."""
    decodes = tuple(
        decode(b1=b1, b64=b64)
        for b1, b64 in zip(noisy(*NOISE), noisy(*NOISE, at=70.0), strict=True)
    )
    cases = (
        Measured(COHERENCE, (coherence(),)),
        Measured(DECODE, decodes),
        Measured(PREFILL, tuple(map(prefill, noisy(*NOISE, at=50.0)))),
        Measured(KERNELS, (kernels(),)),
    )
    fields = {"date": "2026-11-20", "commit": "abc1234", "dirty": False, "machine": MACHINE}
    return Baseline(**{"name": name, "kind": kind, "cases": cases} | fields | changes)


class Runs:
    """In place of `run_case`: hands out results in turn, the last one again and again."""

    def __init__(self, **results):
        """results  case -> a result, a list of them, or a text: why there is none"""
        given = {"coherence": coherence(), "decode": decode(b1=60.0, b64=70.0)}
        given |= {"prefill": prefill(50.0), "kernels": kernels()} | results
        self.results = {k: list(v) if isinstance(v, list) else [v] for k, v in given.items()}
        self.ran = []

    def __call__(self, case):
        self.ran.append(case.name)
        left = self.results[case.name]
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, str):
            raise UnmeasuredError(found)
        if isinstance(found, Exception):
            raise found
        return found

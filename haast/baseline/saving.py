"""What a baseline says of the code and the machine it is of."""

from datetime import date

from haast.baseline.document import Baseline, Measured
from haast.baseline.known_good import Kind
from haast.baseline.machine import this_machine
from haast.bench.checkout import commit


def describe(name: str, kind: Kind, cases: tuple[Measured, ...]) -> Baseline:
    """A baseline of this code, on this machine, today."""
    found = commit()
    return Baseline(
        name=name,
        kind=kind,
        date=date.today().isoformat(),
        commit=found and found.rstrip("+"),
        dirty=bool(found and found.endswith("+")),
        machine=this_machine(with_gpu=kind == "gpu"),
        cases=cases,
    )

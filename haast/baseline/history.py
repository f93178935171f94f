"""The journal as a picture: a metric over commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from haast.baseline.entry import Entry
from haast.baseline.errors import BaselineError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = "os^Dv<>"
"""One a machine"""


@dataclass(frozen=True)
class Series:
    """One metric on one machine, oldest first."""

    metric: str
    machine: str
    places: tuple[int, ...]
    """which of the labels"""
    values: tuple[float, ...]


def series(entries: Sequence[Entry], metrics: Sequence[str]) -> tuple[list[str], list[Series]]:
    """Labels of all checks in the order of time, and what they say of the metrics.

    entries  newest first, as in the journal
    metrics  none = all there are
    Raises BaselineError if there is nothing to draw, with the metrics that there are.
    """
    checks = [entry for entry in reversed(entries) if entry.facts]
    known = list(dict.fromkeys(row[0] for entry in checks for row in entry.rows))
    missing = [metric for metric in metrics if metric not in known]
    if missing or not known:
        have = f"there are {', '.join(known)}" if known else "haast journal add makes them"
        raise BaselineError(f"no entry has a metric {', '.join(missing)}".rstrip() + f"; {have}")
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for place, entry in enumerate(checks):
        assert entry.facts is not None
        machine = entry.facts.machine.split(", driver")[0].split(", torch")[0]
        for metric in metrics or known:
            value = entry.value(metric)
            if value is not None:
                points.setdefault((metric, machine), []).append((place, value))
    labels = [f"{entry.facts.commit}\n{entry.date}" for entry in checks if entry.facts]
    return labels, [
        Series(*key, *(tuple(column) for column in zip(*found, strict=True)))
        for key, found in points.items()
    ]


def draw(labels: Sequence[str], lines: Sequence[Series]) -> "Figure":
    """Shares of the floor over commits, in matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(7, 1.2 * len(labels)), 5), layout="constrained")
    axes = figure.add_subplot(ylabel="% of the floor")
    axes.grid(color="#dddddd")
    machines = list(dict.fromkeys(line.machine for line in lines))
    for line in lines:
        mark = MARKS[machines.index(line.machine) % len(MARKS)]
        name = line.metric if len(machines) == 1 else f"{line.metric}, {line.machine}"
        axes.plot(line.places, line.values, f"{mark}-", label=name)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_ylim(bottom=0)
    if len(machines) == 1:
        axes.set_title(machines[0])
    axes.legend()
    return figure

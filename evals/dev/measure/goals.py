"""Judge the unpruned model by what it should be able to do, from rows of `unpruned.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.results import TaskResult, compare

Interval = tuple[float, float]


class Verdict(Enum):
    HOLDS = "holds"
    FAILS = "does not hold"
    CHANCE = "within chance"
    UNKNOWN = "not measured"


def above(interval: Interval, least: float) -> Verdict:
    """Return HOLDS if a value with this 95 % interval is surely at least `least`, FAILS if surely not, else CHANCE."""
    low, high = interval
    if low >= least:
        return Verdict.HOLDS
    return Verdict.FAILS if high < least else Verdict.CHANCE


#: Where the measured interval lies.
INTERVAL = {
    Verdict.HOLDS: "is above the goal",
    Verdict.FAILS: "is below it",
    Verdict.CHANCE: "includes it",
    Verdict.UNKNOWN: Verdict.UNKNOWN.value,
}


@dataclass(frozen=True)
class Goal:
    """An accuracy that the unpruned model should have on a split of a set, at the processor's resolution."""

    what: str
    least: float
    dataset: str
    task: str
    split: str


GOALS = (
    Goal("REC, known objects", 0.85, "scenes", "rec", "val"),
    Goal("VQA, known objects", 0.88, "scenes", "vqa", "val"),
    Goal("REC, unseen objects", 0.60, "scenes", "rec", "test"),
    Goal("VQA, unseen objects", 0.60, "scenes", "vqa", "test"),
    Goal("counting", 0.80, "counting", "vqa", "val"),
    Goal("relations", 0.80, "relations", "vqa", "val"),
    Goal("text", 0.60, "text", "vqa", "val"),
)
#: The share of the accuracy that a quarter of the visual tokens should keep.
AT_HALF_RESOLUTION, FULL, HALF = 0.8, "scenes", "scenes 112x112"


def goals_table(rows: Sequence[TaskResult]) -> Table:
    """Return every goal with the measured accuracy. A goal is reached if the accuracy itself is high enough; its
    interval shows how certain that is."""
    lines = []
    for goal in GOALS:
        row = _find(rows, goal.dataset, goal.task)
        if row is None or goal.split not in row.scores:
            lines.append([goal.what, f"{goal.least:.0%}", NOTHING, NOTHING, INTERVAL[Verdict.UNKNOWN]])
            continue
        part = row.of_split(goal.split)
        reached = "yes" if part.accuracy >= goal.least else "no"
        measured = f"{_percent(part.accuracy, part.interval)}, n = {part.n}"
        lines.append([goal.what, f"{goal.least:.0%}", measured, reached, INTERVAL[above(part.interval, goal.least)]])
    lines += _at_half_resolution(rows)
    return Table(["goal", "at least", "measured", "reached", "the interval"], lines)


def _at_half_resolution(rows: Sequence[TaskResult]) -> Iterator[list[str]]:
    for task in ("rec", "vqa"):
        full, half = (_find(rows, dataset, task) for dataset in (FULL, HALF))
        what, least = f"{task.upper()} at half resolution, of full", f"{AT_HALF_RESOLUTION:.0%}"
        if full is None or half is None or not full.accuracy:
            yield [what, least, NOTHING, NOTHING, INTERVAL[Verdict.UNKNOWN]]
            continue
        found = compare(half, full)
        reached = "yes" if found.relative >= AT_HALF_RESOLUTION else "no"
        measured = f"{_percent(found.relative, found.relative_interval)}, n = {found.n}"
        yield [what, least, measured, reached, INTERVAL[above(found.relative_interval, AT_HALF_RESOLUTION)]]


def _find(rows: Sequence[TaskResult], dataset: str, task: str) -> TaskResult | None:
    fitting = (row for row in rows if (row.dataset, row.task, row.strategy) == (dataset, task, UNPRUNED))
    return next(fitting, None)


def _percent(value: float, interval: Interval) -> str:
    low, high = interval
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"

"""What `dev.measure` has measured of its plan, and what it has not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenprune.evals.dev.measure.plan import ORIGINAL, PRUNED, Part
from tokenprune.evals.dev.measure.steps import Step, asked_as, steps
from tokenprune.evals.dev.measure.stored import refused_beside
from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.run.setups import make_setups
from tokenprune.evals.storage.results import TaskResult, by_setup
from tokenprune.evals.storage.results_io import read

ROWS = RESULTS / "accuracy"
#: The plan's most important part, which tables of all setups show.
MAIN = PRUNED[0]
NOTHING_MEASURED = "Not measured yet.\n"


@dataclass(frozen=True)
class Measured:
    """What is stored of a part of the plan.

    rows: those of the unpruned model and of every setup that has a row for each task. Empty without the unpruned model.
    missing: keep ratios without any rows.
    lacking: strategies that are planned at the other keep ratios, but have no rows there yet.
    refused: strategies that cannot prune the model that much, by keep ratio.
    """

    part: Part
    rows: Sequence[TaskResult]
    missing: Sequence[float]
    lacking: Mapping[float, Sequence[str]]
    refused: Mapping[float, Sequence[str]]

    @property
    def notes(self) -> list[str]:
        """Sentences about what the rows lack."""
        return [*self._named("not possible on this model", self.refused), *self.not_measured]

    @property
    def not_measured(self) -> list[str]:
        """Sentences about what the rows do not have yet."""
        notes = self._named("not measured yet", self.lacking)
        if self.missing:
            notes.append(f"{listed([percent(ratio) for ratio in self.missing])}: not measured yet.")
        return notes

    def _named(self, what: str, strategies: Mapping[float, Sequence[str]]) -> list[str]:
        return [
            f"At {percent(ratio)}, {what}: {listed([f'`{name}`' for name in names])}."
            for ratio, names in strategies.items()
            if names and ratio not in self.missing
        ]


@cache
def measured(part: Part, folder: Path = ROWS) -> Measured:
    """Read what is stored of a part. folder: the folder of the rows."""
    unpruned, *pruned = steps(part, settings=())
    rows = _rows(unpruned, folder)
    by_ratio = {step.ratio: _rows(step, folder) if rows else [] for step in pruned}
    missing = [ratio for ratio, rows in by_ratio.items() if not rows]
    lacking = {step.ratio: list(_lacking(step, by_ratio[step.ratio], folder)) for step in pruned}
    refused = {step.ratio: _refused(step, folder) for step in pruned}
    return Measured(part, [*rows, *(row for own in by_ratio.values() for row in own)], missing, lacking, refused)


def at_equal_caches(folder: Path = ROWS) -> list[TaskResult]:
    """Return the rows of the main part at unplanned keep ratios, which give a KV cache of the same size as a strategy
    inside the language model."""
    planned = {folder / f"{step.name}.jsonl" for step in steps(MAIN, settings=())}
    files = sorted({*(folder / MAIN.name).glob("*.jsonl")} - planned)
    return [row for file in files for row in _of_all_tasks(file)]


def label(strategy: str) -> str:
    """Return the name in the rows of a strategy of the plan."""
    asked, baselines = asked_as(strategy)
    return make_setups(asked, [0.5], ORIGINAL, baselines)[0].label


def listed(names: Sequence[str]) -> str:
    """Join one or more names as in a sentence."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def percent(ratio: float) -> str:
    return f"{100 * ratio:g} %"


def _rows(step: Step, folder: Path) -> list[TaskResult]:
    file = folder / f"{step.name}.jsonl"
    return _of_all_tasks(file) if file.is_file() else []


def _lacking(step: Step, rows: Sequence[TaskResult], folder: Path) -> Iterator[str]:
    """Yield the strategies of a step that do not have all of their rows and were not refused."""
    known, refused = {row.key for row in rows}, _refused(step, folder)
    for name in step.strategies:
        if name not in refused and not {setup.key for setup in step.setups(name)} <= known:
            yield name


def _of_all_tasks(file: Path) -> list[TaskResult]:
    """Return the rows of setups with a row for every task of their set."""
    with file.open(encoding="utf-8") as lines:
        tasks = set(json.loads(next(lines))["identity"]["data"])
    return [row for own in by_setup(read([file])).values() if tasks <= set(own) for row in own.values()]


def _refused(step: Step, folder: Path) -> list[str]:
    file = refused_beside(folder / f"{step.name}.jsonl")
    return list(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else []

"""Measure the plan step by step. What has rows is not measured again, on this or another machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tokenprune.errors import TokenPruneError
from tokenprune.evals.defaults import BATCH_TOKENS
from tokenprune.evals.dev.measure.plan import Part, is_inside
from tokenprune.evals.dev.measure.steps import Step, asked_as, steps
from tokenprune.evals.dev.measure.stored import StoredRows, claimed, lacking
from tokenprune.evals.models.loading import name_and_style
from tokenprune.evals.run.calibration_images import calibrated_on, without_images
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.questions import limit_questions, load_questions
from tokenprune.evals.run.setups import Pruned, Setup
from tokenprune.evals.storage.provenance import model_identity, tasks_identity
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.tune.sharing import shared_encoder, shares
from tokenprune.strategies.settings import SettingsFile

#: Batches whose encoded images stay in memory: the current one, and the question whose KV cache is measured.
REMEMBERED = 2


@dataclass(frozen=True)
class Group:
    """Setups of a step that are asked together about one task.

    setups: the setups of each strategy. ids: their position IDs. is_shared: whether one pass of the vision tower serves
    all of them.
    """

    task: str
    setups: Mapping[str, Sequence[Setup]]
    ids: tuple[str, ...]
    is_shared: bool

    @property
    def n_setups(self) -> int:
        return sum(map(len, self.setups.values()))

    @property
    def name(self) -> str:
        """The name of the run's folder: different strategies are a different run."""
        names = "\n".join(Path(name).name for name in self.setups)
        return f"{self.task}_{hashlib.sha256(names.encode()).hexdigest()[:8]}"


@dataclass
class Measuring:
    """model: a loaded model and its processor. name: the model's name in the rows. data: the folder of the sets.

    output: the folder of the rows. runs: the folder of all answers, from which an interrupted group resumes.
    questions: maximum per task, None for the plan's number.
    """

    model: tuple[Any, Any]
    name: str
    data: Path
    output: Path
    runs: Path
    settings: Sequence[Path]
    dtype: str
    questions: int | None = None
    _identities: dict[Part, dict[str, Any]] = field(default_factory=dict)
    _refused: dict[Step, dict[str, str]] = field(default_factory=dict)

    def measure(self, part: Part, console: Console) -> None:
        """Measure what is missing of a part, except what another process is measuring. Print what cannot be measured,
        and leave it out."""
        for step in self.steps(part):
            with claimed(self.runs / f"{step.name}.lock") as is_mine:
                if not is_mine:
                    console.print(f"{step.name}: another process measures it", markup=False)
                    continue
                self._stored(step).refuse({Path(name).name: reason for name, reason in self.refused(step).items()})
                for group in self.missing(step):
                    rows = self.ask(step, group, self.runs / step.name / group.name)
                    self._stored(step).add([replace(row, model=self.name, seconds=None) for row in rows])
                    names = ", ".join(group.setups)
                    console.print(f"{step.name}: measured {group.task} of {names}", soft_wrap=True, markup=False)
            for strategy, reason in self.refused(step).items():
                console.print(f"{step.name}: {strategy} is left out: {reason}", soft_wrap=True, markup=False)

    def steps(self, part: Part) -> list[Step]:
        return list(steps(part, self.settings))

    def rows(self, part: Part) -> list[TaskResult] | None:
        """Return all rows of a part; None if any is missing."""
        if any(self.missing(step) for step in self.steps(part)):
            return None
        return [row for step in self.steps(part) for row in self._stored(step).rows()]

    def missing(self, step: Step) -> list[Group]:
        """Return what has no rows yet, except refused strategies. What is fastest to measure comes first."""
        rows, where = self._stored(step).rows(), str(self._stored(step).file)
        setups = {name: step.setups(name) for name in step.strategies if name not in self.refused(step)}
        groups: dict[tuple[str, tuple[str, ...], bool], dict[str, Sequence[Setup]]] = {}
        for task in self._identity(step.part)["data"]:
            for strategy, own in setups.items():
                if lacking(rows, own, task, where):
                    is_shared = all(shares(setup.strategy) for setup in own if isinstance(setup, Pruned))
                    groups.setdefault((task, step.part.ids(strategy), is_shared), {})[strategy] = own
        made = [Group(task, own, ids, is_shared) for (task, ids, is_shared), own in groups.items()]
        return sorted(made, key=lambda group: (not group.is_shared, any(map(is_inside, group.setups))))

    def refused(self, step: Step) -> dict[str, str]:
        """Return which strategies cannot prune this model at this keep ratio, and why."""
        if step not in self._refused:
            self._refused[step] = {}
            for strategy in step.strategies:
                try:
                    for setup in step.setups(strategy):
                        with setup.patched(self.model[0]):
                            pass
                except TokenPruneError as error:
                    self._refused[step][strategy] = str(error)
        return self._refused[step]

    def n_questions(self, part: Part, task: str) -> int:
        return self._identity(part)["data"][task]["questions"]

    def ask(self, step: Step, group: Group, folder: Path, limit: int | None = None) -> list[TaskResult]:
        """Return a group's rows. limit: maximum number of questions, instead of the planned one.

        Times are those of `generate` alone. The first setup's also includes the vision tower's pass for all setups.
        """
        asked = [asked_as(strategy) for strategy in group.setups]
        pruned = [setup.strategy for own in group.setups.values() for setup in own if isinstance(setup, Pruned)]
        encoding = shared_encoder(self.model[0], pruned, REMEMBERED) if group.is_shared else nullcontext()
        with encoding:
            return evaluate(
                self.model,
                output=folder,
                strategies=[name for strategies, _ in asked for name in strategies],
                keep_ratios=[step.ratio],
                position_ids=group.ids,
                baselines=[name for _, baselines in asked for name in baselines],
                tasks=[group.task],
                data=self.data / step.part.data,
                limit=self._limit(step.part) if limit is None else limit,
                apart_from=self._files(step.part),
                dtype=self.dtype,
                image_size=step.part.image_size,
                console=Console(quiet=True),
            )

    def _stored(self, step: Step) -> StoredRows:
        return StoredRows(self.output / f"{step.name}.jsonl", self._identity(step.part))

    def _identity(self, part: Part) -> dict[str, Any]:
        """Return what determines the answers of a part, besides the setups and what the names of part and step say."""
        if part not in self._identities:
            folder, calibration = self.data / part.data, frozenset[str]()
            for file in self._files(part):
                calibration |= calibrated_on(SettingsFile.read(file))
            questions = load_questions(folder, style=name_and_style(self.model)[1])
            questions = without_images(questions, calibration, str(folder))
            data = tasks_identity(limit_questions(questions, self._limit(part)))
            for of_task in data.values():
                del of_task["images"]  # rows that were stored earlier do not have it
            model = model_identity(self.model[0])
            self._identities[part] = {"model": model, "batch_tokens": BATCH_TOKENS, "data": data}
        return self._identities[part]

    def _files(self, part: Part) -> Sequence[Path]:
        """Return the settings files of a part. No strategy of the part is measured on the images that they were
        calibrated on, so that all can be compared."""
        return self.settings if part.settings else ()

    def _limit(self, part: Part) -> int | None:
        limits = [limit for limit in (part.questions, self.questions) if limit is not None]
        return min(limits, default=None)

"""A protocol's run: `evaluate` on every task, into folders from which it resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from tokenprune.errors import DataError, SettingError, TokenPruneError
from tokenprune.evals.models.loading import load_model, read_config
from tokenprune.evals.papers.protocol import UNPRUNED, Column, Method, Protocol
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.processes import processes
from tokenprune.evals.run.questions import limit_questions, load_questions
from tokenprune.evals.run.setups import make_setups
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.tasks.base.question import Question

Row = tuple[str, float]
#: By row (a method's name and budget) and column.
Measured = Mapping[Row, Mapping[str, TaskResult]]


@dataclass(frozen=True)
class PaperRun:
    """What is measured of a protocol, and where.

    tasks: only the columns of these tasks; None: all that can be measured. limit: the most questions of each task.
    output: a folder with a run folder for each task and kind of position IDs.
    """

    protocol: Protocol
    model: str
    data: Path
    output: Path
    tasks: Sequence[str] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        known = list(dict.fromkeys(column.task for column in self.protocol.columns if column.task))
        unknown_tasks = [task for task in self.tasks or () if task not in known]
        if unknown_tasks:
            raise SettingError(
                f"{self.protocol.name} has no column for {' '.join(unknown_tasks)}; its tasks are {', '.join(known)}"
            )

    @cached_property
    def columns(self) -> list[Column]:
        return [
            column
            for column in self.protocol.columns
            if column.task is not None and (self.tasks is None or column.task in self.tasks)
        ]

    @cached_property
    def sets(self) -> list[tuple[str, str | None]]:
        """The tasks with their splits, each once."""
        return list(dict.fromkeys((column.task, column.split) for column in self.columns if column.task is not None))

    def problems(self, *, with_model: bool = True) -> Iterator[str]:
        """Yield what keeps the run from starting, before any weights are loaded: one sentence each. with_model: whether
        to read the model's config.json, which may have to be downloaded."""
        of_sets = (partial(self.questions, *of_set) for of_set in self.sets)
        for check in ([self.check_model] if with_model else []) + [self.setups, *of_sets]:
            try:
                check()
            except TokenPruneError as error:
                yield str(error)

    def check_model(self) -> None:
        """Raise SettingError for a model of another family, DataError if its config.json cannot be read."""
        found, wanted = read_config(self.model).get("model_type"), self.protocol.model_type
        if found != wanted:
            raise SettingError(
                f"{self.model} is of type {found!r}, and {self.protocol.name} of {wanted!r}: its numbers are those of "
                f"{self.protocol.model}. Name a model of that type, or a protocol for yours (`tokenprune paper`)"
            )

    def questions(self, task: str, split: str | None) -> list[Question]:
        """Return the questions to ask. DataError for a missing, broken or unknown file or split."""
        return limit_questions(load_questions(self.data, [task], split=split), self.limit)

    def setups(self) -> dict[Row, SetupKey]:
        """Return what every row is called in results. SettingError for a strategy that cannot be read."""
        return {row: key for group in self.groups for row, key in group.keys().items()}

    @cached_property
    def groups(self) -> list[Group]:
        """The methods that one call of `evaluate` can measure: with the same position IDs and budgets."""
        found: dict[tuple[str, tuple[float, ...]], list[Method]] = {}
        for method in self.protocol.methods:
            found.setdefault((method.position_ids, method.budgets), []).append(method)
        return [Group(self.protocol, *kind, tuple(methods)) for kind, methods in found.items()]

    def folder(self, task: str, split: str | None, group: Group | None) -> Path:
        of_set = task if split is None else f"{task}-{split}"
        return self.output / of_set / (UNPRUNED if group is None else group.name)

    def measure(self, dtype: str, batch_tokens: int | None, console: Console) -> Measured:
        """Ask all questions, and return the results. Raises the first of the `problems`."""
        for problem in self.problems():
            raise DataError(problem)
        loaded = load_model(self.model, dtype, processes().device)
        measured: dict[Row, dict[str, TaskResult]] = {}
        for task, split in self.sets:
            of_set = [column for column in self.columns if (column.task, column.split) == (task, split)]
            for group in (None, *self.groups):
                results = evaluate(
                    loaded,
                    **({"baselines": [UNPRUNED], "strategies": []} if group is None else group.arguments),
                    tasks=[task],
                    data=self.data,
                    split=split,
                    limit=self.limit,
                    image_size=self.protocol.image_size,
                    pad=self.protocol.pad,
                    batch_tokens=batch_tokens,
                    output=self.folder(task, split, group),
                    console=console,
                )
                by_key = {result.key: result for result in results}
                whole: Row = UNPRUNED, self.protocol.whole
                rows: dict[Row, SetupKey] = {whole: results[0].key} if group is None else group.keys()
                for row, column in product(rows, of_set):
                    measured.setdefault(row, {})[column.name] = by_key[rows[row]]
        return measured


@dataclass(frozen=True)
class Group:
    """Methods with the same position IDs and budgets."""

    protocol: Protocol
    position_ids: str
    budgets: tuple[float, ...]
    methods: tuple[Method, ...]

    @property
    def name(self) -> str:
        return "-".join([self.position_ids, *(f"{budget:g}" for budget in self.budgets)])

    @property
    def arguments(self) -> dict[str, Any]:
        """The setups, as arguments of `evaluate`."""
        return {
            "strategies": [method.strategy for method in self.methods],
            "keep_ratios": [self.protocol.keep_ratio(budget) for budget in self.budgets],
            "position_ids": [self.position_ids],
            "baselines": [],
        }

    def keys(self) -> dict[Row, SetupKey]:
        setups = make_setups(**self.arguments)
        rows = [(method.name, budget) for budget, method in product(self.budgets, self.methods)]
        return {row: setup.key for row, setup in zip(rows, setups, strict=True)}

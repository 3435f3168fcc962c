"""A protocol: a published table of accuracy, with everything that is needed to measure it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError, unknown
from tokenprune.evals.defaults import POSITION_IDS
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.reading import fields
from tokenprune.evals.tasks import TASKS, find_task
from tokenprune.text_files import read_toml

FOLDER = Path(__file__).parent / "protocols"
UNPRUNED = "unpruned"
KEYS = {
    *("title", "source", "model", "model_type", "data", "pad", "image_size", "visual_tokens", "position_ids"),
    *("columns", "average", "strategies", "published"),
}
COLUMN_KEYS = {"task", "split", "metrics", "mean", "unavailable"}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    task: None if it cannot be measured, and `unavailable` then says why. metrics: names of the task's metrics, which
    are added up, or averaged if `mean`; () is the task's main metric.
    """

    name: str
    task: str | None
    split: str | None
    metrics: tuple[str, ...]
    mean: bool
    unavailable: str

    @property
    def scale(self) -> float:
        """What a measured value is multiplied by to be in the table's unit: per cent, or points of a sum."""
        of_task = TASKS.get(self.task or "")
        return 1.0 if of_task is not None and set(self.metrics) & of_task.sums else 100.0


@dataclass(frozen=True)
class Method:
    """A row's name in the table, and the strategy that it stands for. budgets: those that it was published at."""

    name: str
    strategy: str
    position_ids: str
    budgets: tuple[float, ...]


@dataclass(frozen=True)
class Protocol:
    """A published table.

    model_type: the family that `model` is of, as its config.json says. data: the folder with the questions, if it is
        known. visual_tokens: of an unpruned image; budgets are then numbers of tokens, and otherwise keep ratios.
    published: by method and budget (UNPRUNED and the largest budget for the unpruned model), the numbers by column.
    average: published means of the accuracies relative to the unpruned model, in per cent, by method and budget.
    """

    name: str
    title: str
    source: str
    model: str
    model_type: str
    data: Path | None
    pad: bool
    image_size: tuple[int, int] | None
    visual_tokens: int | None
    columns: tuple[Column, ...]
    methods: tuple[Method, ...]
    published: Mapping[tuple[str, float], Mapping[str, float]]
    average: Mapping[tuple[str, float], float]

    @property
    def whole(self) -> float:
        """The budget of the unpruned model."""
        return float(self.visual_tokens or 1)

    def keep_ratio(self, budget: float) -> float:
        return budget / self.whole


def names() -> list[str]:
    """Return the names of the protocols that are installed with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str) -> Protocol:
    """Return an installed protocol, or the one in a user's TOML file. DataError, naming file and key, if it is broken
    or names an unknown task."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in names():
            raise DataError(f"{unknown('protocol', name, names())} A file of your own ends in .toml")
        path = FOLDER / f"{name}.toml"
    content, where = read_toml(path), str(path)
    _check_keys(content, KEYS, where)
    columns = tuple(
        _column(key, value, f"{where}, columns.{key}") for key, value in _table(content, "columns", where).items()
    )
    numbers = _table(content, "published", where)
    average = content.get("average", {})
    methods = tuple(
        _method(key, value, content.get("position_ids", "compact"), numbers.get(key, {}), average, where)
        for key, value in _table(content, "strategies", where).items()
    )
    _check_keys(numbers, {UNPRUNED, *(method.name for method in methods)}, f"{where}, published")
    visual_tokens = fields.integer(content, "visual_tokens", where) if "visual_tokens" in content else None
    whole = float(visual_tokens or 1)
    published = {(UNPRUNED, whole): _row(numbers.get(UNPRUNED, []), columns, f"{where}, published.{UNPRUNED}")}
    for method in methods:
        for budget, row in numbers.get(method.name, {}).items():
            place = f"{where}, published.{method.name}.{budget}"
            if not 0 < float(budget) <= whole:
                raise DataError(f"{place}: a budget of {budget} is not above 0 and up to {whole:g} (visual_tokens)")
            published[method.name, float(budget)] = _row(row, columns, place)
    size = content.get("image_size")
    return Protocol(
        name=path.stem,
        title=fields.text(content, "title", where),
        source=fields.text(content, "source", where),
        model=fields.text(content, "model", where) if "model" in content else str(MODEL),
        model_type=fields.text(content, "model_type", where),
        data=Path(content["data"]) if "data" in content else None if "model" in content else SCENES,
        pad=fields.boolean(content, "pad", where) if "pad" in content else False,
        image_size=None if size is None else (int(size[0]), int(size[1])),
        visual_tokens=visual_tokens,
        columns=columns,
        methods=methods,
        published=published,
        average={
            (name, float(budget)): fields.as_number(value, f"{where}, average.{name}.{budget}")
            for name, of_budget in average.items()
            for budget, value in of_budget.items()
        },
    )


def _column(name: str, content: Any, where: str) -> Column:
    content = fields.as_object(content, where)
    _check_keys(content, COLUMN_KEYS, where)
    if "unavailable" in content:
        return Column(name, None, None, (), False, fields.text(content, "unavailable", where))
    task = fields.text(content, "task", where)
    find_task(task)
    split = fields.text(content, "split", where) if "split" in content else None
    metrics = tuple(fields.texts(content, "metrics", where)) if "metrics" in content else ()
    mean = fields.boolean(content, "mean", where) if "mean" in content else False
    return Column(name, task, split, metrics, mean, "")


def _method(name: str, content: Any, ids: Any, rows: Any, average: Mapping[str, Any], where: str) -> Method:
    place = f"{where}, strategies.{name}"
    content = content if isinstance(content, dict) else {"strategy": content}
    _check_keys(content, {"strategy", "position_ids"}, place)
    ids = content.get("position_ids", ids)
    if ids not in POSITION_IDS:
        raise DataError(f"{place}: {unknown('kind of position IDs', ids, POSITION_IDS)}")
    budgets = [*fields.as_object(rows, f"{where}, published.{name}"), *average.get(name, {})]
    if not budgets:
        raise DataError(f"{place}: no budgets; write them with the published numbers, in [published.{name}]")
    try:
        measured_at = tuple(dict.fromkeys(map(float, budgets)))
    except ValueError as error:
        raise DataError(f"{where}, published.{name}: budgets are numbers ({error})") from error
    return Method(name, fields.text(content, "strategy", place), ids, measured_at)


def _row(values: Any, columns: Sequence[Column], where: str) -> dict[str, float]:
    """Return a row's numbers by column, without those that are `nan`."""
    if not isinstance(values, list) or len(values) not in (0, len(columns)):
        raise DataError(
            f"{where}: expected {len(columns)} numbers, one for each of {', '.join(column.name for column in columns)} "
            "(nan where none was published)"
        )
    return {
        column.name: fields.as_number(value, where)
        for column, value in zip(columns, values, strict=False)
        if not (isinstance(value, float) and isnan(value))
    }


def _table(content: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    return fields.as_object(fields.field(content, key, where), f"{where}, {key}")


def _check_keys(content: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise DataError(f"{where}: {unknown('key', key, known)}")

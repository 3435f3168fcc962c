"""The results of one or more runs as Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tokenprune.errors import DataError
from tokenprune.evals.report import markers, plot
from tokenprune.evals.report.differences import check_baseline, difference_table, mean_table, unpruned_table
from tokenprune.evals.report.page import page
from tokenprune.evals.report.regressions import AskedQuestion, Regression, questions_of, worst_regressions
from tokenprune.evals.report.same_questions import check_same_questions, check_same_weights
from tokenprune.evals.report.table import FORMATS, Table, joined
from tokenprune.evals.report.tables import (
    accuracy_table,
    compared,
    further_metrics_table,
    split_table,
    summary_table,
)
from tokenprune.evals.report.verdict import verdict
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage import results_io
from tokenprune.evals.storage.files import naming
from tokenprune.evals.storage.results import TaskResult, by_setup
from tokenprune.evals.storage.run_folder import RunFolder

TASKS_OF_A_TABLE = 4
#: Above the lines that say how rows were measured, if there are several.
UNLIKE = "Not all of this was measured in the same way, and differences between setups may come from that, too:"


def read(results: Sequence[Path]) -> list[TaskResult]:
    """Return the rows of folders of runs, and of files of rows.

    A row that occurs twice with the same scores is used once; different scores are an error, as are different questions
    of one task and set, and different weights of one model.
    """
    for path in results:
        if path.is_file() and (path.name == "run.json" or path.name.startswith("answers")):
            raise DataError(f"{path}: a file of a run, without its results; name the folder: {path.parent}")
    files = {path: path if path.is_file() else RunFolder(path).results_file for path in results}
    check_same_weights(files)
    check_same_questions({path: results_io.read([file]) for path, file in files.items()})
    return results_io.read(list(files.values()))


def report(
    rows: Sequence[TaskResult], *, baseline: str | None = None, further: bool = True, form: str = "markdown"
) -> str:
    """Return verdicts and all tables in one of `table.FORMATS`; without `further`, those of the main metrics alone."""
    parts = sections(rows, baseline=baseline, further=further)
    return joined([*verdicts(rows), *parts], form)


def verdicts(rows: Sequence[TaskResult]) -> list[str]:
    """Return one sentence about each set on which strategies were compared with the unpruned model."""
    return list(filter(None, map(verdict, _by_set(rows).values())))


def sections(rows: Sequence[TaskResult], *, baseline: str | None = None, further: bool = True) -> list[str | Table]:
    """Return all tables and the captions above them; without `further`, those of the main metrics alone.

    A set on which no strategy was measured is only in the unpruned model's table.
    """
    models = dict.fromkeys(row.model for row in rows)
    if len(models) > 1:
        raise DataError(f"rows of several models ({', '.join(models)}); report on one at a time")
    check_baseline(rows, baseline)
    parts: list[str | Table] = []
    for dataset, of_set in _by_set(rows).items():
        groups = _side_by_side(of_set)
        if _has_strategies(of_set):
            parts += [f"Accuracy on `{dataset}` in per cent, with 95 % interval:", *map(accuracy_table, groups)]
            parts += _differences(dataset, groups, baseline)
        if further and any(tables := [further_metrics_table(part) for part in groups]):
            caption = f"Further metrics on `{dataset}` in per cent, with 95 % interval, and counts:"
            parts += [caption, *filter(None, tables)]
        if further and (means := mean_table(of_set)) is not None:
            parts += [f"Mean over the tasks of `{dataset}` of the accuracy relative to the unpruned model:", means]
    parts += _by_split(_side_by_side(rows))
    return [*parts, provenance(rows)]


def _differences(dataset: str, of_set: Sequence[Sequence[TaskResult]], baseline: str | None) -> list[str | Table]:
    """Return the question-by-question comparisons: of position IDs, and of strategies with `baseline` and with no
    pruning."""
    pruned = (key for part in of_set for key in compared(by_setup(part)) if key.strategy != UNPRUNED)
    ids = ", original position IDs" if all(key.position_ids == "original" for key in pruned) else ""
    captions = {
        f"Paired differences on `{dataset}` (the same questions under both) in points, with 95 % interval:": [
            difference_table(part, baseline) for part in of_set
        ],
        f"Against the unpruned model on `{dataset}`{ids} (the same questions): points and relative "
        "accuracy with 95 % interval, p of McNemar's exact test:": [*map(unpruned_table, of_set)],
    }
    return [part for caption, tables in captions.items() if any(tables) for part in (caption, *filter(None, tables))]


def _by_split(parts: Sequence[Sequence[TaskResult]]) -> list[str | Table]:
    """Return the unpruned model's accuracy by split, one table for each part in which it was measured."""
    unpruned = [part for part in parts if any(row.strategy == UNPRUNED for row in part)]
    return ["Unpruned, by split, in per cent with 95 % interval:", *map(split_table, unpruned)] if unpruned else []


def _has_strategies(rows: Sequence[TaskResult]) -> bool:
    return any(row.strategy != UNPRUNED for row in rows)


def _by_set(rows: Sequence[TaskResult]) -> dict[str, list[TaskResult]]:
    """The rows of each set, in the order of the sets."""
    by_set: dict[str, list[TaskResult]] = {}
    for row in rows:
        by_set.setdefault(row.dataset, []).append(row)
    return by_set


def _side_by_side(rows: Sequence[TaskResult]) -> list[list[TaskResult]]:
    """Split the rows by task into groups that fit side by side in a table."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    parts = [tasks[start : start + TASKS_OF_A_TABLE] for start in range(0, len(tasks), TASKS_OF_A_TABLE)]
    return [[row for row in rows if row.task in part] for part in parts]


def summary(rows: Sequence[TaskResult]) -> str:
    """Return one table for each set on which strategies were measured, and the unpruned model's accuracy by split."""
    parts: list[str | Table] = []
    for dataset, of_set in _by_set(rows).items():
        if _has_strategies(of_set):
            parts += [f"Accuracy on `{dataset}` in per cent, with 95 % interval, best first:", summary_table(of_set)]
    return joined([*parts, *_by_split([rows]), provenance(rows)])


def differences(rows: Sequence[TaskResult], *, baseline: str | None = None) -> str:
    """Return the paired comparisons of each set on which strategies were measured."""
    check_baseline(rows, baseline)
    parts: list[str | Table] = []
    for dataset, of_set in _by_set(rows).items():
        if _has_strategies(of_set):
            parts += _differences(dataset, _side_by_side(of_set), baseline)
    return joined([*parts, provenance(rows)])


def write(
    results: Sequence[Path],
    rows: Sequence[TaskResult],
    folder: Path,
    *,
    baseline: str | None,
    n_losses: int,
    split: str | None = None,
    form: str = "markdown",
) -> list[Path]:
    """Write the report's tables in one of `table.FORMATS`, its plot and its page into `folder`, and return their paths.

    The page shows `n_losses` questions of each setup and task of the runs among the `results`; with `split`, of that
    split alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = sections(rows, baseline=baseline)
    told = verdicts(rows)
    tables, html = folder / f"report{FORMATS[form]}", folder / "report.html"
    with naming(tables):
        tables.write_text(joined([*told, *parts], form), encoding="utf-8")
    plots = plot.draw(rows, folder)
    lost: list[Regression] = []
    questions: dict[tuple[str, str, str], AskedQuestion] = {}
    notes: list[str] = []
    for run in (RunFolder(path) for path in results if path.is_dir()):
        answers = {asked: answer for asked, answer in run.answers().items() if split in (None, answer.split)}
        of_run = [replace(regression, run=str(run.path)) for regression in worst_regressions(answers, n_losses)]
        lost += of_run
        try:
            questions |= questions_of(run, of_run)
        except (OSError, ValueError) as error:
            notes.append(f"{run.path}: questions and images are not shown: {error}")
    title = f"{rows[0].model}: what pruning costs"
    shown = next((path for path in plots if path.suffix == ".png"), None)
    with naming(html):
        html.write_text(page(title, told, parts, shown, lost, questions, " ".join(notes)), encoding="utf-8")
    return [html, tables, *plots]


def fill_document(text: str, rows: Sequence[TaskResult], *, baseline: str | None = None) -> str:
    """Return the document with the tables filled in that it has markers for: see `table_makers`."""
    tables = table_makers(rows, baseline=baseline)
    if not set(markers.names_in(text)) & set(tables):
        lines = " or ".join(markers.marks(name)[0].strip() for name in tables)
        raise DataError(
            f"the document has no markers for a table: write {lines} where it belongs, and on the next line the same "
            "with `end of table`"
        )
    return markers.fill(text, tables)


def table_makers(rows: Sequence[TaskResult], *, baseline: str | None = None) -> dict[str, Callable[[], str]]:
    """Return the functions that make the tables of a document, by the names in its markers.

    accuracy: one line per strategy, with both position IDs. paired differences: question by question. report: all
    tables of the main metrics.
    """
    return {
        "accuracy": lambda: summary(rows),
        "paired differences": lambda: differences(rows, baseline=baseline),
        "report": lambda: report(rows, baseline=baseline, further=False),
    }


def provenance(rows: Sequence[TaskResult]) -> str:
    """Return a line with the rows' model, dtype, device and versions; if they differ, one line for each, below a
    sentence that says so."""
    models = dict.fromkeys(
        f"`{row.model}`, {row.dtype} on {row.device}, "
        + ", ".join(f"{name} {version}" for name, version in row.versions.items())
        for row in rows
    )
    lines = "\n".join(f"({model})" for model in models)
    return lines if len(models) == 1 else f"{UNLIKE}\n\n{lines}"

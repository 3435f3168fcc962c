"""The results of one or more runs as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from tokenprune.evals.report import markers as marked
from tokenprune.evals.report import pareto
from tokenprune.evals.report.page import page
from tokenprune.evals.report.regressions import Loss, samples_of, worst
from tokenprune.evals.report.tables import (
    Table,
    accuracy_table,
    difference_table,
    further_table,
    split_table,
    summary_table,
    unpruned_table,
)
from tokenprune.evals.run import results_io as row_files
from tokenprune.evals.run.results import Row
from tokenprune.evals.run.run_folder import RunFolder
from tokenprune.evals.tasks._base.question import Sample

TASKS_OF_A_TABLE = 4
#: What marks in a document name.
TABLES, SUMMARY = "tokenprune.evals.report.report", "tokenprune.evals.report.report, summary"


def read(results: Sequence[Path]) -> list[Row]:
    """Return the rows of folders of runs, and of files of rows.

    One that is there twice with the same scores is taken once, else it is an error.
    """
    return row_files.read([path if path.is_file() else RunFolder(path).rows_file for path in results])


def report(rows: Sequence[Row], *, baseline: str | None = None, further: bool = True) -> str:
    """Return all tables as Markdown; without `further`, those of the main metrics alone."""
    return "\n\n".join(map(str, sections(rows, baseline=baseline, further=further))) + "\n"


def sections(rows: Sequence[Row], *, baseline: str | None = None, further: bool = True) -> list[str | Table]:
    """Return all tables and the words above them; without `further`, those of the main metrics alone.

    A set on which no strategy was measured is only in the table of the unpruned model.
    """
    models = dict.fromkeys(row.model for row in rows)
    if len(models) > 1:
        raise ValueError(f"rows of several models ({', '.join(models)}); report on one at a time")
    parts: list[str | Table] = []
    for scenes in dict.fromkeys(row.scenes for row in rows):
        of_set = _side_by_side([row for row in rows if row.scenes == scenes])
        tables: dict[str, list[Table | None]] = {}
        if len({row.key for part in of_set for row in part}) > 1:
            tables[f"Accuracy on `{scenes}` in per cent, with 95 % interval:"] = [*map(accuracy_table, of_set)]
            differences = f"Paired differences on `{scenes}` (the same questions under both) in points"
            tables[f"{differences}, with 95 % interval:"] = [difference_table(part, baseline) for part in of_set]
            against = (
                f"Against the unpruned model on `{scenes}`, original position IDs (the same questions): points and"
            )
            tables[f"{against} relative accuracy with 95 % interval, p of McNemar's exact test:"] = [
                *map(unpruned_table, of_set)
            ]
        if further:
            tables[f"Further metrics on `{scenes}` in per cent, with 95 % interval, and counts:"] = [
                further_table(part) for part in of_set
            ]
        for words, found in tables.items():
            if any(found):
                parts += [words, *filter(None, found)]
    parts += ["Unpruned, by split, in per cent with 95 % interval:", *map(split_table, _side_by_side(rows))]
    return [*parts, _provenance(rows)]


def _side_by_side(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows of as many tasks as a table can have side by side, then those of the next ones, and so on."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    parts = [tasks[start : start + TASKS_OF_A_TABLE] for start in range(0, len(tasks), TASKS_OF_A_TABLE)]
    return [[row for row in rows if row.task in part] for part in parts]


def summary(rows: Sequence[Row]) -> str:
    """Return one table for each set on which strategies were measured, and the unpruned model's accuracy by split."""
    parts: list[str | Table] = []
    for scenes in dict.fromkeys(row.scenes for row in rows):
        of_set = [row for row in rows if row.scenes == scenes]
        if len({row.key for row in of_set}) > 1:
            parts += [f"Accuracy on `{scenes}` in per cent, with 95 % interval, best first:", summary_table(of_set)]
    parts += ["Unpruned, by split, in per cent with 95 % interval:", split_table(rows), _provenance(rows)]
    return "\n\n".join(map(str, parts)) + "\n"


def write(
    results: Sequence[Path], rows: Sequence[Row], folder: Path, *, baseline: str | None, n_losses: int
) -> list[Path]:
    """Write the report's Markdown, its plots and its page into `folder`, and return their paths.

    The page shows `n_losses` questions of each setup and task of the runs among the `results`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = sections(rows, baseline=baseline)
    markdown, html = folder / "report.md", folder / "report.html"
    markdown.write_text("\n\n".join(map(str, parts)) + "\n", encoding="utf-8")
    plots: list[Path] = []
    for scenes in dict.fromkeys(row.scenes for row in rows):
        of_set = [row for row in rows if row.scenes == scenes]
        if len({row.key for row in of_set}) > 1:
            plots += pareto.draw(of_set, folder, scenes)
    found: list[Loss] = []
    samples: dict[tuple[str, str], Sample] = {}
    notes: list[str] = []
    for run in (RunFolder(path) for path in results if path.is_dir()):
        of_run = worst(run.answers(), n_losses)
        found += of_run
        try:
            samples |= samples_of(run, of_run)
        except (OSError, ValueError) as error:
            notes.append(f"{run.path}: questions and pictures are not shown: {error}")
    title = f"{rows[0].model}: what pruning costs"
    shown = [path for path in plots if path.suffix == ".png"]
    html.write_text(page(title, parts, shown, found, samples, " ".join(notes)), encoding="utf-8")
    return [html, markdown, *plots]


def put_into(text: str, rows: Sequence[Row], *, baseline: str | None = None) -> str:
    """Return a document with the tables that it has marks for: all of the main metrics, or the summary."""
    makes = {
        TABLES: lambda: report(rows, baseline=baseline, further=False),
        SUMMARY: lambda: summary(rows),
    }
    wanted = [name for name in makes if marked.marks(name)[0] in text]
    if not wanted:
        lines = " or ".join(marked.marks(name)[0].strip() for name in makes)
        raise ValueError(
            f"nothing to put tables into: write {lines} where they shall be, and the same with `end` below"
        )
    for name in wanted:
        text = marked.put_into(text, name, makes[name]())
    return text


def _provenance(rows: Sequence[Row]) -> str:
    models = dict.fromkeys(
        f"`{row.model}`, {row.dtype} on {row.device}, "
        + ", ".join(f"{name} {version}" for name, version in row.versions.items())
        for row in rows
    )
    return "\n".join(f"({model})" for model in models)

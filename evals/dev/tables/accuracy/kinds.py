"""How much accuracy strategies keep on each kind of question."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokenprune.evals.dev.measure.plan import KINDS, PRUNED
from tokenprune.evals.dev.tables.accuracy.measured import NOTHING_MEASURED, ROWS, measured, percent
from tokenprune.evals.report import report
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.report.tables import accuracy_cell, task_title
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.results import TaskResult, by_setup, compare

WHOLE = SetupKey(UNPRUNED, "original", 1.0)


def stored(folder: Path = ROWS) -> str:
    """Return one line per setup, and one column per set and task."""
    parts = [measured(part, folder) for part in PRUNED if part.data in KINDS]
    rows = [row for part in parts for row in part.rows]
    if not rows:
        return NOTHING_MEASURED
    columns: dict[tuple[str, str], dict[SetupKey, TaskResult]] = {}
    for row in rows:
        columns.setdefault((row.dataset, row.task), {})[row.key] = row
    headings = [
        f"{dataset}, {task_title(column[WHOLE])} (n = {column[WHOLE].n})" for (dataset, _), column in columns.items()
    ]
    keys = sorted(by_setup(rows), key=lambda key: -key.keep_ratio)
    lines = [[percent(key.keep_ratio), key.strategy, *(_cell(key, own) for own in columns.values())] for key in keys]
    notes = [f"`{part.part.name}`: {note}" for part in parts for note in part.notes]
    table = Table(["keep ratio", "strategy", *headings], lines)
    return "\n\n".join([str(table), *notes, report.provenance(rows)]) + "\n"


def _cell(key: SetupKey, column: Mapping[SetupKey, TaskResult]) -> str:
    """Return an accuracy and, for pruned setups, its share of the unpruned model's on the same questions."""
    if key not in column:
        return NOTHING
    cell = accuracy_cell(column[key])
    if key == WHOLE or not column[WHOLE].accuracy:
        return cell
    return f"{cell}, {compare(column[key], column[WHOLE]).relative:.0%}"

"""The unpruned model on every set, by the grid of visual tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt
from pathlib import Path

from tokenprune.evals.dev.measure.plan import UNPRUNED, Part
from tokenprune.evals.dev.tables.accuracy.measured import NOTHING_MEASURED, ROWS, measured
from tokenprune.evals.report import report
from tokenprune.evals.report.tables import split_table
from tokenprune.evals.storage.results import TaskResult


def stored(folder: Path = ROWS) -> str:
    """Return the accuracy on all questions of each set and of each of its splits."""
    parts = {part: measured(part, folder).rows for part in UNPRUNED}
    rows = [replace(row, dataset=_named(part, rows)) for part, rows in parts.items() for row in rows]
    if not rows:
        return NOTHING_MEASURED
    missing = [_named(part, rows) for part, rows in parts.items() if not rows]
    notes = [f"Not measured yet: {'; '.join(missing)}."] if missing else []
    return "\n\n".join([str(split_table(rows)), *notes, report.provenance(rows)]) + "\n"


def _named(part: Part, rows: Sequence[TaskResult]) -> str:
    """Return the name of a set with its grid. The processor's own grid is square."""
    if part.grid is None:
        side = isqrt(round(rows[0].n_visual)) if rows else None
        return part.data if side is None else f"{part.data}, {side} x {side}"
    return f"{part.data}, {part.grid[0]} x {part.grid[1]}"

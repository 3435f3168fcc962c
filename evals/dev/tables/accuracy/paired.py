"""Strategies and position IDs compared question by question."""

from pathlib import Path

from tokenprune.evals.dev.measure.plan import PRUNED
from tokenprune.evals.dev.tables.accuracy.measured import NOTHING_MEASURED, ROWS, measured
from tokenprune.evals.report import report


def stored(folder: Path = ROWS) -> str:
    """Return the differences on every set at every complete keep ratio."""
    parts = [measured(part, folder) for part in PRUNED]
    rows = [row for part in parts for row in part.rows]
    if not rows:
        return NOTHING_MEASURED
    notes = [f"`{part.part.name}`: {note}" for part in parts for note in part.notes]
    return "\n\n".join([*notes, report.differences(rows)])

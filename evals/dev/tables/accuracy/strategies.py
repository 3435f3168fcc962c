"""Every strategy on the main part, and on grids other than the processor's."""

from pathlib import Path

from tokenprune.evals.dev.measure.plan import PRUNED
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, NOTHING_MEASURED, ROWS, Measured, measured
from tokenprune.evals.report import report


def stored(folder: Path = ROWS) -> str:
    return _tables(measured(MAIN, folder))


def on_other_grids(folder: Path = ROWS) -> str:
    parts = [part for part in PRUNED if part.grid is not None]
    return "\n".join(f"`{part.name}`:\n\n{_tables(measured(part, folder))}" for part in parts)


def _tables(measured: Measured) -> str:
    if len(measured.missing) == len(measured.part.ratios):
        return NOTHING_MEASURED
    return "\n\n".join([*measured.notes, report.summary(measured.rows)])

"""Whether the unpruned model reaches its goals, and whether published findings hold on it."""

from pathlib import Path

from tokenprune.evals.dev.measure.directions import directions
from tokenprune.evals.dev.measure.goals import goals_table
from tokenprune.evals.dev.measure.plan import PRUNED, UNPRUNED
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, NOTHING_MEASURED, ROWS, at_equal_caches, measured


def goals(folder: Path = ROWS) -> str:
    rows = [row for part in UNPRUNED for row in measured(part, folder).rows]
    return f"{goals_table(rows)}\n"


def findings(folder: Path = ROWS) -> str:
    """Return the verdicts on the main part, also at equal KV caches, and on the same images at another resolution."""
    judged: list[str] = []
    for part in (part for part in PRUNED if part.data == MAIN.data):
        found = measured(part, folder)
        if len(found.missing) < len(part.ratios):
            rows = [*found.rows, *(at_equal_caches(folder) if part == MAIN else ())]
            judged.append("\n\n".join([f"On `{rows[0].dataset}`:", *found.notes, directions(rows)]))
    return "\n".join(judged) or NOTHING_MEASURED

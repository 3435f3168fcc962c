"""Whether published findings hold on the bundled model."""

from pathlib import Path

from tokenprune.evals.dev.measure.directions import directions
from tokenprune.evals.dev.measure.plan import PRUNED
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, NOTHING_MEASURED, ROWS, at_equal_caches, measured


def findings(folder: Path = ROWS) -> str:
    """Return the verdicts on the main part, also at equal KV caches, and on the same images at another resolution."""
    judged: list[str] = []
    for part in (part for part in PRUNED if part.data == MAIN.data):
        part_rows = measured(part, folder)
        if len(part_rows.missing) < len(part.ratios):
            rows = [*part_rows.rows, *(at_equal_caches(folder) if part == MAIN else ())]
            judged.append("\n\n".join([f"On `{rows[0].dataset}`:", *part_rows.notes, directions(rows)]))
    return "\n".join(judged) or NOTHING_MEASURED

"""CPU time of selection alone, as `dev.experiments.selection.images` stored it."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from tokenprune.evals.dev.stored import RESULTS, json_lines, versions
from tokenprune.evals.report.table import Table


def stored() -> str:
    rows = json_lines(RESULTS / "selection.jsonl")
    return f"{table(rows)}\n\nMedians of {len(rows[0]['seconds'])} rounds, one thread; {versions(rows[0])}\n"


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return one line per strategy, the fastest first."""
    lines = [
        [f"`{row['strategy']}`", str(row["n_left"]), f"{1e3 * median(row['seconds']):.1f} ms"]
        for row in sorted(rows, key=lambda row: median(row["seconds"]))
    ]
    return Table(["strategy", "tokens left of 576", "CPU time"], lines)

"""CPU time and memory of prefills as images grow, as `dev.experiments.growth` measures them."""

from typing import Any

from tokenprune.evals.report.table import Table

HEADINGS = [
    "image",
    "strategy",
    "visual tokens",
    "left in the tower",
    "kept",
    "CPU s",
    "µs a token",
    "peak",
    "bytes a token",
]
GIB = 2**30


def table(rows: list[dict[str, Any]]) -> Table:
    """Return one line for each image and strategy."""
    return Table(HEADINGS, [_line(row) for row in rows])


def _line(row: dict[str, Any]) -> list[str]:
    n_visual, in_tower = row["visual_tokens"], row.get("in_tower") or []
    image = f"{row['tiles']} tiles" if "tiles" in row else f"{row['side']:,} x {row['side']:,}"
    counts = [f"{n_visual:,}", f"{in_tower[-1]:,}" if in_tower else "-", f"{row['kept']:,}" if "kept" in row else "-"]
    costs = [f"{row['seconds']:.3f}", f"{1e6 * row['seconds'] / n_visual:.0f}", f"{row['peak_bytes'] / GIB:.3f} GiB"]
    return [image, row["strategy"], *counts, *costs, f"{row['peak_bytes'] / n_visual:,.0f}"]

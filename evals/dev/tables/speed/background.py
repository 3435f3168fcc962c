"""Time and memory of BackgroundPruning, as `dev.experiments.background_scaling` stored it."""

from typing import Any

from tokenprune.evals.dev.stored import RESULTS, json_lines
from tokenprune.evals.report.table import Table

HEADINGS = ["tiles", "visual tokens", "kept", "CPU s", "CPU ms a tile (lowest, highest)", "given", "peak", "more"]
GIB = 2**30


def stored() -> str:
    return f"{table(json_lines(RESULTS / 'background_scaling.jsonl'))}\n"


def table(sizes: list[dict[str, Any]]) -> Table:
    """Return one line per number of tiles."""
    return Table(HEADINGS, [_line(size) for size in sizes])


def _line(size: dict[str, Any]) -> list[str]:
    value, low, high = (1000 * size[name] / size["tiles"] for name in ("seconds", "lowest", "highest"))
    counts = [f"{size[name]:,}" for name in ("tiles", "visual_tokens", "kept")]
    more = size["peak_bytes"] - size["peak_before_bytes"]
    gib = [f"{amount / GIB:.2f} GiB" for amount in (size["given_bytes"], size["peak_bytes"], more)]
    return [*counts, f"{size['seconds']:.3f}", f"{value:.1f} ({low:.1f}, {high:.1f})", *gib]

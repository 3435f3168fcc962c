"""CPU time and memory of prefills as images grow, as `dev.experiments.growth` measures them."""

from collections.abc import Callable, Sequence
from typing import Any

from tokenprune.evals.dev.stored import RESULTS, json_lines, versions
from tokenprune.evals.report.table import NOTHING, Table

Row = dict[str, Any]


def stored() -> str:
    rows = json_lines(RESULTS / "growth.jsonl")
    about = rows[0]
    return f"{tables(rows)}\n\nMedians of {about['rounds']} rounds; {about['device']}, one thread; {versions(about)}\n"


def tables(rows: Sequence[Row]) -> str:
    """Return tables of time and of memory, for tiled images and for images of any size."""
    parts = []
    for what, size in (("tiles", _tiles), ("pixels", _pixels)):
        own = [row for row in rows if ("tiles" in row) == (what == "tiles")]
        if own:
            parts += [f"CPU seconds of a prefill, by {what}:", table(own, size, _seconds)]
            parts += [f"Peak memory in KB a visual token, by {what}:", table(own, size, _kilobytes)]
    return "\n\n".join(map(str, parts))


def table(rows: Sequence[Row], size: Callable[[Row], str], cell: Callable[[Row], str]) -> Table:
    """Return one line per strategy, and one column per size."""
    found = {(row["strategy"], size(row)): cell(row) for row in rows}
    sizes, strategies = (list(dict.fromkeys(names)) for names in (map(size, rows), (row["strategy"] for row in rows)))
    lines = [[name, *(found.get((name, one), NOTHING) for one in sizes)] for name in strategies]
    return Table(["strategy", *sizes], lines)


def _tiles(row: Row) -> str:
    return f"{row['tiles']} ({row['visual_tokens']:,} tokens)"


def _pixels(row: Row) -> str:
    return f"{row['side']:,} x {row['side']:,} ({row['visual_tokens']:,} tokens)"


def _seconds(row: Row) -> str:
    return f"{row['seconds']:.3g}"


def _kilobytes(row: Row) -> str:
    return f"{row['peak_bytes'] / row['visual_tokens'] / 1000:.1f}"

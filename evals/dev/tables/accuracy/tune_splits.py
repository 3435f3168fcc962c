"""Whether the bound of `tune` holds on hidden questions, as `dev.experiments.tune_splits` stored it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenprune.evals.dev.stored import RESULTS, json_lines
from tokenprune.evals.report.table import NOTHING, Table


def stored() -> str:
    return f"{table(json_lines(RESULTS / 'tune_splits.jsonl'))}\n"


def table(outcomes: Sequence[dict[str, Any]]) -> Table:
    """Return one line per bound."""
    lines = []
    for bound in dict.fromkeys(one["bound"] for one in outcomes):
        own = [one for one in outcomes if one["bound"] == bound]
        kept = [one for one in own if one["setting"] is not None]
        means = [sum(one[name] for one in kept) / len(kept) for name in ("points", "cost")] if kept else None
        lines.append(
            [
                f"{bound:g}",
                f"{len(kept)} of {len(own)}",
                NOTHING if means is None else f"{means[1]:.0%}",
                NOTHING if means is None else f"{means[0]:+.1f}",
                NOTHING if not kept else f"{max(one['points'] for one in kept):+.1f}",
                str(sum(one["above"] for one in kept)),
                str(sum(one["surely_above"] for one in kept)),
            ]
        )
    head = "points", "splits with a promise", "tokens left, mean", "points lost on hidden questions, mean", "most"
    return Table([*head, "above the bound", "interval above the bound"], lines)

"""Adaptive budgets against fixed ones with the same average, as `dev.experiments.adaptive` stored them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenprune.evals.dev.stored import RESULTS, json_lines
from tokenprune.evals.report.table import Table

HEADINGS = (
    "strategy",
    "`mass`",
    "task",
    "n",
    "tokens, mean [fewest, most]",
    "adaptive",
    "fixed tokens",
    "fixed",
    "adaptive - fixed",
)


def stored() -> str:
    return f"{table(json_lines(RESULTS / 'adaptive.jsonl'))}\n"


def table(records: Sequence[dict[str, Any]]) -> Table:
    """Return one line per strategy, share and task: accuracies in per cent, differences in points, with 95 %
    intervals."""
    lines = []
    for one in records:
        if one["strategy"] == "unpruned":
            cells = [
                "unpruned",
                "",
                one["task"].upper(),
                str(one["n"]),
                f"{one['tokens']:.0f}",
                "",
                "",
                _share(one),
                "",
            ]
            lines.append(cells)
            continue
        adaptive, fixed, found = one["adaptive"], one["fixed"], one["difference"]
        low, high = found["interval"]
        p = "" if found["p"] is None else f", p = {found['p']:.2g}"
        lines.append(
            [
                f"`{one['strategy']}`",
                f"{one['mass']:g}",
                one["task"].upper(),
                str(one["n"]),
                f"{adaptive['tokens']:.1f} [{adaptive['fewest']}, {adaptive['most']}]",
                _share(adaptive),
                f"{fixed['tokens']:.0f}",
                _share(fixed),
                f"{100 * found['points']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]{p}",
            ]
        )
    return Table(HEADINGS, lines)


def _share(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    return f"{100 * one['accuracy']:.1f} [{100 * low:.0f}, {100 * high:.0f}]"

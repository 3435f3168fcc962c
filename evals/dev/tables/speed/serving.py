"""What pruning saves in vLLM, as `dev.experiments.serving` stored it."""

import json
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from tokenprune.evals.dev.stored import RESULTS, versions
from tokenprune.evals.report.table import Table
from tokenprune.evals.stats import bootstrap_interval

Row = dict[str, Any]


def stored() -> str:
    content = json.loads((RESULTS / "serving.json").read_text(encoding="utf-8"))
    about = content["about"]
    return (
        f"{table(content)}\n\nMedians of {about['rounds']} rounds; ratios, within rounds, with 95 % interval; "
        f"{about['dtype']}, {about['device']}; {versions(about)}; {about['date']}\n"
    )


def table(content: dict[str, Any]) -> Table:
    """Return one line per keep ratio and strategy. Ratios are to the same server unpruned, in the same round."""
    rows, bounds = content["rows"], content["about"]["bounds"]
    loads = sorted({row["clients"] for row in rows if "clients" in row})
    heads = ["keep ratio", "strategy", "TTFT", "to unpruned", "FLOPs bound", "selection of an image"]
    heads += [f"requests/s, {n} client{'s' * (n > 1)}" for n in loads]
    lines = []
    for keep_ratio, bound in sorted(((float(ratio), bound) for ratio, bound in bounds.items()), reverse=True):
        for strategy in dict.fromkeys(row["strategy"] for row in rows):
            unpruned = [row for row in rows if row["strategy"] == strategy and row["keep_ratio"] == 1]
            mine = [row for row in rows if row["strategy"] == strategy and row["keep_ratio"] == keep_ratio]
            ttft, selection = (median(_values(mine, key).values()) for key in ("ttft", "selection"))
            line = [f"{100 * keep_ratio:.0f} %", strategy if keep_ratio < 1 else f"unpruned (engine of {strategy})"]
            line += [f"{ttft:.2f} s", _to(unpruned, mine, "ttft"), f"{bound:.2f}", f"{1e3 * selection:.1f} ms"]
            for n in loads:
                rate = median(_values(mine, "rate", n).values())
                line.append(f"{rate:.2f}" + (f", {_to(unpruned, mine, 'rate', n)} x" if keep_ratio < 1 else ""))
            lines.append([*line, f"{median(_values(mine, 'blocks', loads[-1]).values()):.0f}"])
    return Table([*heads, f"most KV blocks, {loads[-1]} clients"], lines)


def _to(unpruned: Sequence[Row], rows: Sequence[Row], key: str, n_clients: int | None = None) -> str:
    whole, part = _values(unpruned, key, n_clients), _values(rows, key, n_clients)
    ratios = np.array([value / whole[number] for number, value in part.items()])
    if (ratios == 1).all():
        return "1"
    low, high = bootstrap_interval((ratios,), np.median)
    return f"{np.median(ratios):.2f} [{low:.2f}, {high:.2f}]"


def _values(rows: Sequence[Row], key: str, n_clients: int | None = None) -> dict[int, float]:
    """Return a value by round."""
    return {row["round"]: row[key] for row in rows if key in row and row.get("clients") == n_clients}

"""What PixelPrune saves in vLLM, as `dev.experiments.serving.pages` stored it."""

import json
from statistics import median
from typing import Any

import numpy as np

from tokenprune.evals.dev.stored import RESULTS, versions
from tokenprune.evals.report.table import Table
from tokenprune.evals.stats import bootstrap_interval

HEADS = ["image", "prompt, unpruned", "prompt, pruned", "TTFT, unpruned", "TTFT, pruned", "to unpruned"]


def stored() -> str:
    content = json.loads((RESULTS / "serving_pages.json").read_text(encoding="utf-8"))
    about = content["about"]
    return (
        f"{table(content)}\n\nMedians of {about['rounds']} rounds, CPU time of one thread; ratios, within rounds, with "
        f"95 % interval; {about['dtype']}, {about['device']}; {versions(about)}; {about['date']}\n"
    )


def table(content: dict[str, Any]) -> Table:
    """Return one line per kind of image. Ratios are to the unpruned model in the same round."""
    rows, lines = content["rows"], []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        whole, pruned = (
            [row for row in rows if (row["kind"], row["pruned"]) == (kind, is_pruned)] for is_pruned in (False, True)
        )
        before, after = ([row["seconds"] for row in some] for some in (whole, pruned))
        ratios = np.array(after) / np.array(before)
        low, high = bootstrap_interval((ratios,), np.median)
        lines.append(
            [
                kind,
                *(f"{median(row['n_prompt'] for row in some):.0f}" for some in (whole, pruned)),
                *(f"{median(seconds):.2f} s" for seconds in (before, after)),
                f"{np.median(ratios):.2f} [{low:.2f}, {high:.2f}]",
            ]
        )
    return Table(HEADS, lines)

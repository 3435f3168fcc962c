"""The cost of a patch per decode step, as `dev.experiments.decode_steps` stored it."""

import json
from typing import Any

from tokenprune.evals.dev.stored import RESULTS, versions
from tokenprune.evals.report.table import Table


def stored() -> str:
    content = json.loads((RESULTS / "decode_steps.json").read_text(encoding="utf-8"))
    about = content["about"]
    return (
        f"{table(content['steps'])}\n\n{about['keep_ratio']:.1%} of {about['n_visual']} visual tokens, medians of "
        f"{about['rounds']} rounds with 95 % interval; {about['device']}, one thread; {versions(about)}; "
        f"{about['date']}\n"
    )


def table(steps: list[dict[str, Any]]) -> Table:
    """Return one line per strategy: CPU time of a step without the patch, and what the patch adds."""
    lines = []
    for one in steps:
        value, low, high = (1e3 * one["added"][key] for key in ("value", "low", "high"))
        plain = one["plain"]["value"]
        added = f"{value:.2f} [{low:.2f}, {high:.2f}] ms"
        lines.append([one["label"], f"{1e3 * plain:.1f} ms", added, f"{one['added']['value'] / plain:.1%}"])
    return Table(["strategy", "step", "the patch adds", "of it"], lines)

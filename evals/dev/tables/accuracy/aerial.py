"""Shares of trees kept on aerial photographs, as `dev.experiments.aerial.measure` stored them."""

import json
from typing import Any

from tokenprune.evals.dev.tables import RESULTS
from tokenprune.evals.report.table import Table

#: Shares of a line, by the heading above them.
SHARES = {
    "tree tokens": "tree_tokens",
    "background tokens": "background_tokens",
    "trees with a token": "trees",
    "tree tokens, merged ones too": "tree_tokens_in_cluster",
    "background tokens, merged ones too": "background_tokens_in_cluster",
}


def stored() -> str:
    lines = (RESULTS / "aerial.jsonl").read_text(encoding="utf-8").splitlines()
    return f"{table([json.loads(line) for line in lines])}\n"


def table(survivals: list[dict[str, Any]]) -> Table:
    """Return one line for each strategy and budget; in per cent, with 95 % interval over tiles."""
    return Table(
        ["tokens a tile", "strategy", *SHARES],
        [[str(one["keep"]), one["strategy"], *(_share(one[key]) for key in SHARES.values())] for one in survivals],
    )


def _share(share: dict[str, float]) -> str:
    value, low, high = (100 * share[key] for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"

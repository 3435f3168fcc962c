"""Shares of trees kept on aerial photographs, as `dev.experiments.aerial.measure` stored them."""

from typing import Any

from tokenprune.evals.dev.stored import RESULTS, json_lines
from tokenprune.evals.report.table import Table

#: Heading of a column -> the share in it.
SHARES = {
    "tree tokens": "tree_tokens",
    "background tokens": "background_tokens",
    "trees with a token": "trees",
    "tree tokens, merged ones too": "tree_tokens_in_cluster",
    "background tokens, merged ones too": "background_tokens_in_cluster",
}


def stored() -> str:
    return f"{table(json_lines(RESULTS / 'aerial.jsonl'))}\n"


def table(survivals: list[dict[str, Any]]) -> Table:
    """Return one line per strategy and budget: per cent, with 95 % intervals over tiles."""
    return Table(
        ["tokens a tile", "strategy", *SHARES],
        [[str(one["keep"]), one["strategy"], *(_share(one[key]) for key in SHARES.values())] for one in survivals],
    )


def _share(share: dict[str, float]) -> str:
    value, low, high = (100 * share[key] for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"

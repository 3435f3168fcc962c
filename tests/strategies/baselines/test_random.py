"""Random's share of each tile."""

from __future__ import annotations

from typing import Literal

import torch

from tokenprune import Random
from tokenprune.tokens import Layout, VisualTokens


def test_tiles_have_equal_shares_only_of_a_budget_per_tile() -> None:
    layout = Layout(((1, 4, 4),), n_tiles=2, tiles=torch.arange(16) // 8)
    tokens = VisualTokens(torch.zeros(16, 1), layout, 0, {"pixels": torch.zeros(2, 3, 4, 4)})

    def in_the_first(budget_per: Literal["image", "tile"]) -> set[int]:
        drawn = [Random(keep=8, budget_per=budget_per, seed=seed).select(tokens).kept for seed in range(30)]
        return {int((kept < 8).sum()) for kept in drawn}

    assert in_the_first("tile") == {4}
    assert {3, 4, 5} <= in_the_first("image")

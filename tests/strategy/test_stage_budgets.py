"""Budgets of stages and in the vision tower are relative to the whole image."""

from __future__ import annotations

import pytest
import torch

from tokenprune import FlowCut, PixelPrune, PruningError, VFlowOpt
from tokenprune.strategy import Stage
from tokenprune.tokens import KeptInTower, Layout, StageTokens, VisualTokens

LAYOUT = Layout.raster((1, 4, 4))


def test_a_stage_keeps_the_highest_scores_of_what_is_left_by_a_share_of_all() -> None:
    """A quarter of 16, of 8 that are left."""
    scores = torch.tensor([1.0, 8, 2, 7, 3, 6, 4, 5])
    tokens = StageTokens(torch.zeros(8, 2), torch.arange(0, 16, 2), LAYOUT, scores)
    for stage in (Stage(2, keep_ratio=0.25), Stage(2, keep=4)):
        assert VFlowOpt().select_at(stage, tokens).kept.tolist() == [1, 3, 5, 7]


def test_a_stage_without_scores_to_keep_by() -> None:
    tokens = StageTokens(torch.zeros(8, 2), torch.arange(8), LAYOUT)
    with pytest.raises(PruningError, match=r"select returned no scores.* or override select_at"):
        VFlowOpt().select_at(Stage(2, keep=4), tokens)


def test_of_more_patches_than_the_budget_those_that_are_predicted_worst() -> None:
    """For example if the tower gets the frames of a video one by one."""
    left = KeptInTower(torch.tensor([1, 4, 6]), 16, torch.arange(16.0).remainder(5))
    tokens = VisualTokens(torch.zeros(16, 2), LAYOUT, 0, {"kept_before_tower": left})
    assert PixelPrune(keep=2).select(tokens).kept.tolist() == [1, 4]  # scores 1, 4 and 1
    assert PixelPrune().select(tokens).kept.tolist() == [1, 4, 6]


def test_a_tile_in_the_tower_keeps_at_least_its_share() -> None:
    """1.2 of 10: rounded in an image of one tile, and up in a tile of several, which may be too few otherwise."""
    strategy = FlowCut(keep_ratio=0.12)
    assert (strategy.tower_budget(10, 10), strategy.tower_budget(10, 20), strategy.tower_budget(10, None)) == (1, 2, 2)

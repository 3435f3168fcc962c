"""Strategies that read the places of tokens in an image declare it, because not every model has them."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import ON_LLAVA

from tokenprune import STRATEGIES, FoPru, Nuwa, Selection, Strategy, VFlowOpt
from tokenprune.strategy import TowerStrategy
from tokenprune.tokens import Layout, VisionAttention, VisualTokens

BY_DEFAULT = [STRATEGIES[name]() for name in ON_LLAVA if not issubclass(STRATEGIES[name], TowerStrategy)]
OTHERS = [FoPru(mode="row"), FoPru(cells=2), Nuwa(cells=None), Nuwa(cells=None, gather=False), VFlowOpt(recycle=False)]


def selected(strategy: Strategy, grid: tuple[int, int, int]) -> tuple[Selection, torch.Tensor]:
    """Return what is kept of 24 tokens that form a grid, and the features."""
    generator = torch.Generator().manual_seed(0)
    layout = Layout.raster(grid)
    queries, keys = torch.randn(2, 1, 2, 25, 4, generator=generator) * 3
    attention = VisionAttention(queries, keys, 0.5, 1, layout)
    statistics = {"vision_attention": attention, "pixels": torch.randn(1, 3, 8, 12, generator=generator)}
    tokens = VisualTokens(torch.randn(24, 8, generator=generator), layout, 0, statistics)
    selection = strategy.select(tokens)
    if selection.merged is None:
        return selection, tokens.features[selection.kept]
    return selection, selection.merged.apply(tokens.features, selection.kept)


@pytest.mark.parametrize("strategy", [*BY_DEFAULT, *OTHERS], ids=repr)
def test_a_row_of_as_many_tokens_is_as_good_as_a_grid_unless_the_strategy_reads_it(strategy: Strategy) -> None:
    (grid, features), (row, of_row) = selected(strategy, (1, 4, 6)), selected(strategy, (1, 1, 24))
    same = torch.equal(grid.kept, row.kept) and torch.equal(features, of_row)
    assert same or strategy.reads_grid

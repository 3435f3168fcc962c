"""Budgets per tile, and strategies that read rows and columns."""

from typing import Any

import pytest
import torch
from helpers.tiny import ON_LLAVA
from helpers.tokens.scored import drawn

from tokenprune import STRATEGIES, Downsample, FoPru, Nuwa, Random, Selection, Strategy, VFlowOpt
from tokenprune.engine.select import checked_selection
from tokenprune.strategy import TowerStrategy
from tokenprune.tokens import Layout, VisionAttention, VisualTokens


def tiles(n: int, side: int) -> Layout:
    return Layout.concat([Layout.raster((1, side, side))] * n)


@pytest.mark.parametrize("n_kept", [3, 4, 7, 12])
def test_random_draws_every_tile_for_itself(n_kept: int) -> None:
    layout, different = tiles(4, 2), 0
    for image in range(20):
        statistics = {"pixels": torch.full((4, 3, 2, 2), float(image))}
        tokens = VisualTokens(torch.randn(16, 4), layout, 0, statistics)
        kept = checked_selection(Random(keep=n_kept, budget_per="tile"), tokens).kept
        counts = (kept // 4).bincount(minlength=4)
        assert len(kept) == n_kept
        assert int(counts.max() - counts.min()) <= 1
        different += len({tuple((kept[kept // 4 == tile] % 4).tolist()) for tile in range(4)}) > 2
    assert different > 5


@pytest.mark.parametrize(
    "strategy",
    [FoPru(budget_per="tile"), FoPru(score="cls", budget_per="tile"), VFlowOpt(budget_per="tile", progressive=False)],
)
def test_a_budget_per_tile_computes_each_tiles_attention_once(
    strategy: Strategy, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    weights = VisionAttention._weights

    def counted(self: VisionAttention, tile: int, *args: Any) -> Any:
        computed.append(tile)
        return weights(self, tile, *args)

    monkeypatch.setattr(VisionAttention, "_weights", counted)
    by_tiles = {}
    for n_tiles in (1, 6):
        computed.clear()
        checked_selection(strategy, drawn(tiles(n_tiles, 4)))
        by_tiles[n_tiles] = len(computed)
    assert by_tiles[6] == 6 * by_tiles[1]


def test_a_tile_without_a_share_is_only_scored() -> None:
    """If the budget is smaller than the number of tiles."""
    tokens = drawn(tiles(4, 2), n_prefix=0)
    selection = checked_selection(FoPru(keep=3, budget_per="tile"), tokens)
    scores = tokens.vision_attention.received()
    assert selection.scores is not None
    assert torch.equal(selection.scores, scores)
    best = scores.view(4, 4).argmax(1) + torch.arange(0, 16, 4)
    assert len(selection.kept) == 3
    assert set(selection.kept.tolist()) < set(best.tolist())


def test_a_tile_keeps_its_share_of_what_enters() -> None:
    """That is more than the average over layers, for all tiles together."""
    kept = checked_selection(VFlowOpt(keep_ratio=0.4, budget_per="tile"), drawn(tiles(2, 6), n_prefix=0)).kept
    assert (kept // 36).bincount().tolist() == [16, 17]  # 46 % of 72


# Strategies that read the places of tokens in an image declare it, because not every model has them.


BY_DEFAULT = [STRATEGIES[name]() for name in ON_LLAVA if not issubclass(STRATEGIES[name], (TowerStrategy, Downsample))]
OTHERS = [FoPru(mode="row"), FoPru(cells=2), Nuwa(cells=None), Nuwa(cells=None, gather=False), VFlowOpt(recycle=False)]


def selected(strategy: Strategy, grid: tuple[int, int, int]) -> tuple[Selection, torch.Tensor]:
    """Return what is kept of 24 tokens that form a grid, and the features."""
    tokens = drawn(Layout.raster(grid))
    selection = strategy.select(tokens)
    if selection.merged is None:
        return selection, tokens.features[selection.kept]
    return selection, selection.merged.apply(tokens.features, selection.kept)


@pytest.mark.parametrize("strategy", [*BY_DEFAULT, *OTHERS], ids=repr)
def test_a_row_of_as_many_tokens_is_as_good_as_a_grid_unless_the_strategy_reads_it(strategy: Strategy) -> None:
    (grid, features), (row, of_row) = selected(strategy, (1, 4, 6)), selected(strategy, (1, 1, 24))
    same = torch.equal(grid.kept, row.kept) and torch.equal(features, of_row)
    assert same or strategy.reads_grid

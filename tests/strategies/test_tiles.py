"""Budgets per tile, and strategies that read rows and columns."""

from typing import Any

import pytest
import torch
from helpers.tiny import ON_LLAVA

from tokenprune import STRATEGIES, Downsample, FoPru, Nuwa, Random, Selection, Strategy, VFlowOpt
from tokenprune.engine.select import checked_selection
from tokenprune.selection import tile_share
from tokenprune.strategy import TowerStrategy
from tokenprune.tokens import Layout, VisionAttention, VisualTokens


@pytest.mark.parametrize("n_kept", [3, 4, 7, 12])
def test_random_draws_every_tile_for_itself(n_kept: int) -> None:
    layout, different = Layout.concat([Layout.raster((1, 2, 2))] * 4), 0
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
        layout = Layout.concat([Layout.raster((1, 4, 4))] * n_tiles)
        generator = torch.Generator().manual_seed(0)
        queries, keys = torch.randn(2, n_tiles, 2, 17, 8, generator=generator)
        attention = VisionAttention(queries, keys, 0.5, 1, layout)
        tokens = VisualTokens(torch.randn(16 * n_tiles, 4), layout, 0, {"vision_attention": attention})
        computed.clear()
        checked_selection(strategy, tokens)
        by_tiles[n_tiles] = len(computed)
    assert by_tiles[6] == 6 * by_tiles[1]


def test_a_tile_without_a_share_is_only_scored() -> None:
    """If the budget is smaller than the number of tiles."""
    layout = Layout.concat([Layout.raster((1, 2, 2))] * 4)
    queries, keys = torch.randn(2, 4, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    attention = VisionAttention(queries, keys, 0.5, 0, layout)
    tokens = VisualTokens(torch.randn(16, 4), layout, 0, {"vision_attention": attention})
    selection = checked_selection(FoPru(keep=3, budget_per="tile"), tokens)
    scores = attention.received()
    assert selection.scores is not None
    assert torch.equal(selection.scores, scores)
    best = scores.view(4, 4).argmax(1) + torch.arange(0, 16, 4)
    assert len(selection.kept) == 3
    assert set(selection.kept.tolist()) < set(best.tolist())


def test_a_tile_keeps_its_share_of_what_enters() -> None:
    """That is more than the average over layers, for all tiles together."""
    layout = Layout.concat([Layout.raster((1, 6, 6))] * 2)
    queries, keys = torch.randn(2, 2, 2, 36, 8, generator=torch.Generator().manual_seed(0))
    attention = VisionAttention(queries, keys, 0.5, 0, layout)
    tokens = VisualTokens(torch.randn(72, 4), layout, 0, {"vision_attention": attention})
    kept = checked_selection(VFlowOpt(keep_ratio=0.4, budget_per="tile"), tokens).kept
    assert (kept // 36).bincount().tolist() == [16, 17]  # 46 % of 72


@pytest.mark.parametrize(
    ("n_visual", "n_image", "amount", "share"),
    [
        (100, 400, 0.07, 7),  # as a float, 0.07 * 100 is more than 7
        (100, 400, 0.071, 8),
        (100, 400, 0.0001, 1),
        (100, 400, 10, 3),
        (100, 100, 0.071, 7),  # the budget of an image of one tile
        (100, None, 0.071, 8),
        (100, None, 10, 10),  # of an image of unknown size, all of a count
    ],
)
def test_the_share_of_a_tile_in_the_tower(n_visual: int, n_image: int | None, amount: float, share: int) -> None:
    counts = isinstance(amount, int)
    assert tile_share(n_visual, n_image, None if counts else amount, amount if counts else None) == share


# Strategies that read the places of tokens in an image declare it, because not every model has them.


BY_DEFAULT = [STRATEGIES[name]() for name in ON_LLAVA if not issubclass(STRATEGIES[name], (TowerStrategy, Downsample))]
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

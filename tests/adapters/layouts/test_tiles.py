"""Strategies on tiles and frames: the attention of each tile, and budgets per tile and per image."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.models.tiled import IMAGES, VIDEOS, inputs_of, model_of, reported
from helpers.tiny import BEFORE_THE_LANGUAGE_MODEL

from tokenprune import FoPru, Selection, Strategy
from tokenprune.adapters import adapter_for
from tokenprune.engine.select import checked_selection
from tokenprune.selection import Merge, split
from tokenprune.strategies import parse
from tokenprune.tokens import Layout, VisualTokens


@pytest.mark.parametrize("budget_per", ["image", "tile"])
@pytest.mark.parametrize("strategy", BEFORE_THE_LANGUAGE_MODEL)
@pytest.mark.parametrize(("name", "video"), IMAGES + VIDEOS)
def test_budgets_are_exact(name: str, video: bool, strategy: str, budget_per: Any) -> None:
    """Per tile, each tile gets its share; per image, tiles compete. Either way, the sum is the budget."""
    if not parse(strategy).needs <= adapter_for(model_of(name)).offers:
        pytest.skip(f"refused, as the contract matrix tests: {name} does not offer what {strategy} needs")
    inputs = inputs_of(name, video)
    for keep_ratio in (0.02, 0.1, 0.37):
        chosen = parse(strategy, keep_ratio=keep_ratio, budget_per=budget_per)
        for image in reported(name, inputs, chosen):
            assert image.n_kept == chosen.budget(image.n_visual)
            tiles = image.layout.tiles
            if budget_per == "tile" and tiles is not None:
                n_tiles = int(tiles.max()) + 1
                kept = tiles[image.kept].bincount(minlength=n_tiles).tolist()
                assert kept == split(image.n_kept, tiles.bincount(minlength=n_tiles).tolist())


@pytest.mark.parametrize("keep", [1, 17])
def test_counts_are_exact(keep: int) -> None:
    for budget_per in ("image", "tile"):
        (image,) = reported("llava-next", FAMILIES["llava-next"].prompt([1]), FoPru(keep=keep, budget_per=budget_per))
        assert image.n_kept == keep
        assert image.scores is not None  # even of tiles whose share is 0


@dataclass(frozen=True)
class Folding(Strategy):
    """Keeps the first tokens, and merges the others into the last one that is kept."""

    def select(self, tokens: VisualTokens) -> Selection:
        n_kept = self.budget(tokens.n_visual)
        lost = torch.arange(n_kept, tokens.n_visual)
        merged = Merge(torch.full_like(lost, n_kept - 1), lost, torch.full(lost.shape, 1 / 8))
        return Selection(torch.arange(n_kept), tokens.n_visual, merged=merged)


def test_merging_stays_within_tiles() -> None:
    layout = Layout(((1, 2, 4),), 2, tiles=torch.tensor([0, 0, 1, 1] * 2))
    tokens = VisualTokens(torch.arange(8.0)[:, None], layout)
    selection = checked_selection(Folding(keep=4, budget_per="tile"), tokens)
    assert selection.kept.tolist() == [0, 1, 2, 3]
    assert selection.merged is not None
    # Tile 0 has the tokens 0, 1, 4 and 5, tile 1 the others. The last two of each are merged into its second.
    assert selection.merged.apply(tokens.features, selection.kept)[:, 0].tolist() == [0, 9 / 8, 2, 13 / 8]
    uneven = checked_selection(Folding(keep=3, budget_per="tile"), tokens)
    assert uneven.kept.tolist() == [0, 2, 3]
    assert uneven.merged is not None
    assert uneven.merged.apply(tokens.features, uneven.kept)[:, 0].tolist() == [10 / 8, 2, 13 / 8]


def test_a_budget_per_tile_keeps_the_best_of_every_tile() -> None:
    (image,) = reported("llava-next", FAMILIES["llava-next"].prompt([1]), FoPru(keep=15, budget_per="tile"))
    (whole,) = reported("llava-next", FAMILIES["llava-next"].prompt([1]), FoPru(keep=15))
    tiles, scores = image.layout.tiles, whole.scores
    assert tiles is not None
    assert scores is not None
    for tile in tiles.unique():
        kept = scores[image.kept[tiles[image.kept] == tile]]
        own = scores[tiles == tile].sort(descending=True).values
        assert torch.equal(kept.sort(descending=True).values, own[: len(kept)])
    assert image.kept.tolist() != whole.kept.tolist()

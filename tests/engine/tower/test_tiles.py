"""What is known about a tile from one selection to the next."""

from __future__ import annotations

import torch

from tokenprune.engine.tower.tiles import Tile
from tokenprune.selection import Merge, Selection

CPU = torch.device("cpu")


def test_scores_follow_the_tokens_that_are_left() -> None:
    """Checks the strategy's next input, and the last score of every token."""
    tile = Tile(4, 4, CPU)
    tile.keep(Selection(torch.tensor([0, 2, 3]), 4, torch.tensor([5.0, 1.0, 4.0, 3.0])), 1)
    assert tile.scores is not None
    assert tile.scores.tolist() == [5.0, 4.0, 3.0]
    tile.keep(Selection(torch.tensor([1, 2]), 3, torch.tensor([6.0, 7.0, 8.0])), 2)
    assert tile.scores.tolist() == [7.0, 8.0]
    left = tile.outcome()
    assert left.scores is not None
    assert left.scores.tolist() == [6.0, 1.0, 7.0, 8.0]
    assert left.kept.tolist() == [2, 3]
    assert [(stage.layer, stage.kept.tolist()) for stage in left.stages] == [(1, [0, 2, 3]), (2, [2, 3])]


def test_scores_that_came_too_late_are_not_those_of_all() -> None:
    tile = Tile(4, 4, CPU)
    tile.keep(Selection(torch.tensor([0, 2, 3]), 4), 1)
    tile.keep(Selection(torch.tensor([1, 2]), 3, torch.tensor([6.0, 7.0, 8.0])), 2)
    assert tile.scores is not None
    assert tile.scores.tolist() == [7.0, 8.0]
    assert tile.outcome().scores is None


def test_sizes_add_up() -> None:
    """Token 1 is merged into 0, then everything left in the tile into its last token."""
    tile = Tile(3, 3, CPU)
    pair, one = torch.tensor([0, 0]), torch.ones(2)
    tile.keep(Selection(torch.tensor([0, 2]), 3, merged=Merge(pair, torch.tensor([0, 1]), one / 2)), 1)
    assert tile.sizes.tolist() == [2.0, 1.0]
    tile.keep(Selection(torch.tensor([1]), 2, merged=Merge(pair, torch.tensor([0, 1]), one / 2)), 2)
    assert (tile.sizes.tolist(), tile.left.tolist()) == ([3.0], [2])
    merged = tile.stages[-1].merged
    assert merged is not None
    assert merged.sources.tolist() == [0, 2]  # counted within the tile

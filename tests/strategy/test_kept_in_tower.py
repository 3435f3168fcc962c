"""What the vision tower leaves of an image of several tiles, by hand."""

from __future__ import annotations

import torch

from tokenprune.selection import Merge, StageReport
from tokenprune.tokens import KeptInTower, Layout, TowerTokens, VisionAttention
from tokenprune.tokens.tower import token_means


def row(*values: int) -> torch.Tensor:
    return torch.tensor(values)


#: Four tokens: all enter, the first two layers drop one each, and the second is merged into another.
FIRST = KeptInTower(
    row(0, 3),
    4,
    torch.tensor([5.0, 1, 2, 4]),
    (StageReport(1, row(0, 1, 3)), StageReport(2, row(0, 3), None, Merge(row(0, 0), row(0, 1), torch.ones(2) / 2))),
    torch.tensor([2.0, 1.0]),
)
#: Three tokens, of which two enter, and the second layer merges one into the other.
SECOND = KeptInTower(
    row(2),
    3,
    torch.tensor([0.0, 1, 9]),
    (StageReport(2, row(2), None, Merge(row(0, 0), row(1, 2), torch.tensor([0.25, 0.75]))),),
    entered=row(1, 2),
)


def test_what_is_left_when_a_layer_begins() -> None:
    assert [FIRST.left_at(layer).tolist() for layer in range(4)] == [[0, 1, 2, 3], [0, 1, 3], [0, 3], [0, 3]]
    assert [SECOND.left_at(layer).tolist() for layer in range(4)] == [[1, 2], [1, 2], [2], [2]]


def test_tiles_one_after_the_other() -> None:
    both = KeptInTower.concat([FIRST, SECOND])
    assert (both.kept.tolist(), both.n_visual) == ([0, 3, 6], 7)
    assert both.scores is not None
    assert both.scores.tolist() == [5, 1, 2, 4, 0, 1, 9]
    assert both.sizes.tolist() == [2, 1, 1]
    assert both.entered is not None
    assert both.entered.tolist() == [0, 1, 2, 3, 5, 6]
    first, second = both.stages
    assert (first.layer, first.kept.tolist(), first.merged) == (1, [0, 1, 3, 5, 6], None)
    assert (second.layer, second.kept.tolist()) == (2, [0, 3, 6])
    assert second.merged is not None
    assert second.merged.targets.tolist() == [0, 0, 2, 2]
    assert second.merged.sources.tolist() == [0, 1, 5, 6]
    assert second.merged.weights.tolist() == [0.5, 0.5, 0.25, 0.75]
    assert KeptInTower.concat([SECOND]) is SECOND


def test_parts_of_what_is_left() -> None:
    inside = FIRST.within(row(1, 2, 3))
    assert (inside.kept.tolist(), inside.n_visual, inside.sizes.tolist()) == ([3], 4, [1])
    part = FIRST.of_part(row(0, 2, 3))
    assert part.scores is not None
    assert (part.kept.tolist(), part.n_visual, part.sizes.tolist()) == ([0, 2], 3, [2, 1])
    assert part.scores.tolist() == [5, 2, 4]


def test_the_highest_scores_where_more_is_left_than_the_budget() -> None:
    assert KeptInTower.concat([FIRST, SECOND]).at_most(2).kept.tolist() == [0, 6]
    assert FIRST.at_most(2).kept.tolist() == [0, 3]
    unscored = KeptInTower(row(0, 3), 4)
    assert unscored.at_most(1).kept.tolist() == [0, 3]  # without scores, all are kept


def test_patches_in_a_row_become_one_token() -> None:
    assert token_means(3)(torch.arange(6.0)[None]).tolist() == [1, 4]
    assert token_means(1)(torch.arange(3.0)[None]).tolist() == [0, 1, 2]


def test_keys_are_means_over_heads_of_patches_side_by_side() -> None:
    """A CLS token, and two tokens of two patches each."""
    keys = torch.randn(1, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    layout = Layout(((1, 1, 2),), to_tokens=token_means(2))
    attention = VisionAttention(torch.zeros_like(keys), keys, 1.0, 1, layout)
    tokens = TowerTokens(0, 1, attention, torch.zeros(3, 3, 4), row(0, 1), 2, 2)
    torch.testing.assert_close(tokens.keys, keys[0, :, 1:].mean(0).view(2, 8))

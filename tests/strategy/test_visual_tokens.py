"""The tokens of a tile and of what is left, with their statistics."""

from __future__ import annotations

import pytest
import torch

from tokenprune import SettingError
from tokenprune.tokens import KeptInTower, Layout, VisionAttention, VisualTokens
from tokenprune.tokens.statistics import check_needs

#: Two tiles side by side, with a newline token after each row.
LAYOUT = Layout(
    ((1, 2, 3),),
    n_tiles=2,
    to_tokens=lambda values: torch.cat([values.T, values.amax(0)[:, None]], 1).flatten(),
    tiles=torch.tensor([0, 1, 1] * 2),
    newlines=torch.tensor([False, False, True] * 2),
)
KEYS = torch.tensor([[1.0, 2.0], [4.0, 4.0]]).log()[:, None, :, None]  # of two patches a tile
LEFT = KeptInTower(torch.tensor([0, 4]), 6, torch.arange(6.0))
TOKENS = VisualTokens(
    torch.arange(6.0)[:, None],
    LAYOUT,
    7,
    {
        "vision_attention": VisionAttention(torch.ones_like(KEYS), KEYS, 1.0, 0, LAYOUT),
        "kept_in_tower": LEFT,
        "kept_before_tower": LEFT,
        "pixels": (torch.zeros(3, 4, 4),) * 2,
    },
)
RECEIVED = [2 / 3, 1, 1, 4 / 3, 1, 4 / 3]  # a third and two thirds of two patches' attention, and two halves


def test_the_tokens_of_a_tile() -> None:
    index, part = TOKENS.of_tile(1)
    assert index.tolist() == [1, 2, 4, 5]
    assert part.features[:, 0].tolist() == [1, 2, 4, 5]
    assert part.image == 7
    assert part.grids == ((1, 2, 2),)
    assert (part.is_newline.tolist(), part.n_newlines) == ([False, True] * 2, 2)
    assert part.vision_attention.received().tolist() == pytest.approx([RECEIVED[i] for i in index])
    for left in (part.kept_in_tower, part.kept_before_tower):
        assert (left.kept.tolist(), left.n_visual) == ([2], 4)
    assert len(part.pixels) == 2  # of the whole image


def test_the_tokens_that_are_left() -> None:
    index = torch.tensor([2, 3])
    left = TOKENS.of_left(index, torch.tensor([[20.0], [30.0]]))
    assert left.image == 7
    assert left.features[:, 0].tolist() == [20, 30]
    assert (left.is_newline.tolist(), left.n_newlines) == ([True, False], 1)
    assert left.vision_attention.received().tolist() == pytest.approx([RECEIVED[i] for i in index])
    assert set(left.statistics) == {"vision_attention", "pixels"}  # the tower's indices are of the whole image


def test_a_need_that_nobody_knows() -> None:
    with pytest.raises(SettingError, match=r"Mine\.needs: unknown statistic 'vision_atention'\. Did you mean"):
        check_needs("Mine", frozenset({"vision_atention"}), frozenset({"vision_atention"}), "a model")

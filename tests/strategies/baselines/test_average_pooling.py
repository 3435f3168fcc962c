"""AveragePooling against means worked by hand."""

from __future__ import annotations

import pytest
import torch

from tokenprune import AveragePooling
from tokenprune.strategies.baselines.average_pooling import rectangles
from tokenprune.tokens import Layout, VisualTokens


def pooled(keep: int, layout: Layout) -> tuple[list[int], list[float]]:
    """Kept indices and merged features of visual tokens whose features are their numbers."""
    features = torch.arange(float(layout.n_visual))[:, None]
    selection = AveragePooling(keep=keep).select(VisualTokens(features, layout))
    assert selection.merged is not None
    return selection.kept.tolist(), selection.merged.apply(features, selection.kept)[:, 0].tolist()


def test_rectangles_worked_by_hand() -> None:
    """0 1 | 2 3
    4 5 | 6 7   whose middles, the later of two, are 5 and 7."""
    assert pooled(2, Layout.raster((1, 2, 4))) == ([5, 7], [(0 + 1 + 4 + 5) / 4, (2 + 3 + 6 + 7) / 4])


def test_rows_may_be_cut_differently() -> None:
    """0 1
    2 3        one rectangle in the upper two rows, two in the last
    4 | 5"""
    assert pooled(3, Layout.raster((1, 3, 2))) == ([3, 4, 5], [1.5, 4.0, 5.0])


def test_frames_are_not_mixed() -> None:
    assert pooled(2, Layout.raster((2, 2, 2))) == ([3, 7], [1.5, 5.5])


def test_newline_tokens_are_kept_whole() -> None:
    """0 1 n2 / 3 4 n5 / 6 7 n8: of 5 tokens, 1 is a newline token, and 4 are of patches: 0 3 | 1 4 | 6 | 7."""
    layout = Layout(((1, 3, 3),), newlines=torch.tensor([False, False, True] * 3))
    assert pooled(5, layout) == ([3, 4, 5, 6, 7], [1.5, 2.5, 5.0, 6.0, 7.0])


@pytest.mark.parametrize("height", [1, 2, 5, 8])
@pytest.mark.parametrize("width", [1, 3, 7])
def test_every_count_has_its_rectangles(height: int, width: int) -> None:
    for count in range(1, height * width + 1):
        cell, middle = rectangles(count, height, width)
        assert cell[middle].tolist() == list(range(count))  # each has its own middle in it
        for i in range(count):
            rows, columns = (cell.view(height, width) == i).nonzero().T
            assert len(rows) == len(rows.unique()) * len(columns.unique())


def test_a_whole_image_is_not_touched() -> None:
    tokens = VisualTokens(torch.randn(6, 2), Layout.raster((1, 2, 3)))
    assert AveragePooling(keep_ratio=1.0).select(tokens).merged is None

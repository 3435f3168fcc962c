"""The baselines: random tokens, a grid, and average pooling."""

import pytest
import torch

from tokenprune import AveragePooling, Grid
from tokenprune.strategies.baselines.average_pooling import rectangles
from tokenprune.tokens import Layout, VisualTokens

# Grid's places, worked out by hand.


def kept(keep: int, *grids: tuple[int, int, int]) -> list[int]:
    layout = Layout(grids)
    return Grid(keep=keep).select(VisualTokens(torch.zeros(layout.n_visual, 1), layout)).kept.tolist()


@pytest.mark.parametrize(
    ("keep", "grid", "expected"),
    [
        (1, (3, 5), [7]),  # the middle
        (2, (2, 4), [5, 7]),  # side by side
        (2, (4, 2), [3, 7]),  # one above the other
        (3, (6, 6), [9, 25, 28]),  # one in the first of two rows, two in the other
        (5, (1, 9), [0, 2, 4, 6, 8]),
        (5, (9, 1), [0, 2, 4, 6, 8]),
        (6, (2, 3), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_places_by_hand(keep: int, grid: tuple[int, int], expected: list[int]) -> None:
    assert kept(keep, (1, *grid)) == expected


def test_grids_and_frames_share_by_their_sizes() -> None:
    """Of five, one is in the overview of 2 x 2 and four in 4 x 4; of three, one in each frame."""
    assert kept(5, (1, 2, 2), (1, 4, 4)) == [3, 4 + 5, 4 + 7, 4 + 13, 4 + 15]
    assert kept(3, (3, 1, 3)) == [1, 4, 7]


@pytest.mark.parametrize(("height", "width"), [(3, 20), (20, 3), (9, 1), (1, 9)])
def test_every_count_has_its_places(height: int, width: int) -> None:
    """As many in every row that has any, but for one."""
    for count in range(1, height * width + 1):
        places = kept(count, (1, height, width))
        assert len(set(places)) == count
        per_row = torch.tensor(places).div(width, rounding_mode="floor").bincount(minlength=height)
        assert per_row[per_row > 0].max() - per_row[per_row > 0].min() <= 1


# AveragePooling against means worked by hand.


def pooled(keep: int, layout: Layout) -> tuple[list[int], list[float]]:
    """Kept indices and merged features of visual tokens whose features are their numbers."""
    features = torch.arange(float(layout.n_visual))[:, None]
    selection = AveragePooling(keep=keep).select(VisualTokens(features, layout))
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

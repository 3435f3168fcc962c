"""Grid's places, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from tokenprune import Grid
from tokenprune.tokens import Layout, VisualTokens


def kept(keep: int, *grids: tuple[int, int, int]) -> list[int]:
    layout = Layout(grids)
    return Grid(keep=keep).select(VisualTokens(torch.zeros(layout.n_visual, 1), layout)).kept.tolist()


@pytest.mark.parametrize(
    ("keep", "grid", "expected"),
    [
        (1, (3, 5), [7]),  # the middle
        (2, (2, 4), [5, 7]),  # side by side
        (2, (4, 2), [3, 7]),  # one above the other
        (
            3,
            (6, 6),
            [9, 25, 28],
        ),  # one in the first of two rows, two in the other
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

"""Layouts: squares of patches, tiles in sequence, what is left of them, and what shares a region."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tokenprune import PruningError
from tokenprune.tokens import Layout
from tokenprune.tokens.layout import of_left

#: A tile of 2 x 2, and two tiles of 1 x 3 in one layout.
SQUARE, ROWS = Layout.raster((1, 2, 2)), Layout(((1, 1, 3), (1, 1, 3)), n_tiles=2)


def test_squares_of_a_raster_that_is_no_square() -> None:
    layout = Layout.squares(4, 7, 2)
    assert layout.grid == (1, 2, 3)
    values = torch.arange(24.0).view(4, 6)
    expected = values.view(2, 2, 3, 2).mean((1, 3)).flatten()
    assert torch.equal(Layout.squares(4, 6, 2).to_tokens(values.view(1, 24)), expected)
    with_rest = torch.cat([values, torch.full((4, 1), 99.0)], 1)  # the last column fills no square
    assert torch.equal(layout.to_tokens(with_rest.view(1, 28)), expected)


def test_tiles_one_after_the_other() -> None:
    whole = Layout.concat([SQUARE, ROWS])
    assert whole.grids == ((1, 2, 2), (1, 1, 3), (1, 1, 3))
    assert whole.n_tiles == 3
    assert whole.n_visual == 10
    assert whole.tiles is not None
    assert whole.tiles.tolist() == [0] * 4 + [1] * 6
    assert whole.frame is None
    with pytest.raises(PruningError, match=r"form 3 grids, .*read \.grids instead"):
        _ = whole.grid


def test_every_tile_is_mapped_by_its_own_layout() -> None:
    """One has a token per square of patches, and the other two tiles."""
    squares = Layout.squares(2, 4, 2)
    both = replace(SQUARE, grids=((1, 1, 8),), n_tiles=2, to_tokens=lambda values: 10 * values.flatten()[:8])
    values = torch.arange(24.0).view(3, 8)
    mapped = Layout.concat([squares, both]).to_tokens(values)
    assert mapped.tolist() == [2.5, 4.5, *range(80, 160, 10)]


def test_only_layouts_that_name_their_frames_are_a_video() -> None:
    frame = replace(SQUARE, frame=torch.zeros(4).long())
    video = Layout.concat([frame, frame])
    assert video.frame is not None
    assert video.frame.tolist() == [0] * 4 + [1] * 4
    assert Layout.concat([frame, SQUARE]).frame is None
    other = replace(Layout.raster((1, 1, 4)), frame=torch.zeros(4).long())
    with pytest.raises(PruningError, match=r"frames of one video must show the same places.* 2 x 2, 1 x 4 visual"):
        Layout.concat([frame, other])
    assert Layout.concat([SQUARE, Layout.raster((1, 1, 4))]).n_visual == 8  # tiles of an image may differ


def test_what_is_left_of_what_is_left() -> None:
    tiles, newlines = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([False, False, True] * 2)
    frame = torch.tensor([0, 0, -1, 1, 1, -1])
    layout = Layout(((1, 2, 3),), n_tiles=2, tiles=tiles, newlines=newlines, frame=frame)
    left = of_left(of_left(layout, torch.tensor([1, 2, 4, 5])), torch.tensor([0, 1, 3]))
    assert left.n_visual == 3
    assert [part.tolist() for part in (left.left, left.tiles, left.newlines, left.frame) if part is not None] == [
        [1, 2, 5],
        [0, 0, 1],
        [False, True, True],
        [0, -1, -1],
    ]
    assert left.to_tokens(torch.arange(6.0).view(2, 3)).tolist() == [1, 2, 5]
    assert left.coordinates().tolist() == [[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 1, 2]]
    assert left.rows().tolist() == [0, 0, 1]
    assert left.grids == ((1, 2, 3),)


def test_regions_are_those_of_one_raster_frame_and_tile() -> None:
    layout = Layout(((2, 1, 2), (2, 1, 4)), tiles=torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1]))
    layout = replace(layout, newlines=torch.arange(12) == 11)
    regions = layout.regions().tolist()
    groups = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
    assert [{regions[token] for token in group} for group in groups] == [{regions[group[0]]} for group in groups]
    assert len({regions[group[0]] for group in groups}) == len(groups)
    assert min(regions[:11]) >= 0 > regions[11]
    assert replace(layout, tiles=None).regions().tolist()[:11] == [0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3]


def test_rows_of_all_frames_and_rasters() -> None:
    layout = Layout(((2, 2, 1), (1, 2, 2)))
    assert layout.n_rows == 6
    assert layout.rows().tolist() == [0, 1, 2, 3, 4, 4, 5, 5]

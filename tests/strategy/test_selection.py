"""Selections, visual tokens and their layouts."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tokenprune import PruningError
from tokenprune.selection import Merge, Selection
from tokenprune.tokens import KeptInTower, Layout, VisionAttention, VisualTokens
from tokenprune.tokens.layout import of_left

MERGE = Merge(torch.tensor([0, 0]), torch.tensor([1, 3]), torch.tensor([0.5, 0.5]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "kept",
    [
        torch.tensor([True, False, True, False]),
        torch.tensor([0, 2], dtype=torch.int32),
        torch.tensor([[0, 2]]),
        torch.tensor(2),
        torch.tensor([], dtype=torch.long),
    ],
    ids=["a mask", "int32", "two axes", "no axis", "nothing"],
)
def test_indices_are_a_row_of_longs(kept: Tensor) -> None:
    with pytest.raises(PruningError, match=r"kept must be a one-axis LongTensor .* From a mask: mask\.nonzero"):
        Selection(kept, 4)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([2, 1], "ascending and unique"),
        ([1, 1], "ascending and unique"),
        ([-1, 2], r"indices in -1\.\.2"),
        ([0, 4], r"indices in 0\.\.4.*0\.\.3.*not within the prompt"),
    ],
)
def test_indices_ascend_within_the_image(kept: list[int], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        Selection(torch.tensor(kept), 4)


def test_one_score_that_is_nan_is_enough() -> None:
    scores = torch.tensor([1.0, torch.nan, 2.0, 3.0])
    for make in (lambda: Selection.best(scores, 2), lambda: Selection(torch.tensor([0, 2]), 4, scores)):
        with pytest.raises(PruningError, match="some are NaN"):
            make()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("scores", [torch.ones(3), torch.ones(4, 1), torch.ones(4, dtype=torch.complex64)])
def test_scores_of_another_kind(scores: Tensor) -> None:
    with pytest.raises(PruningError, match=r"Selection\.scores is .*needs one score for each of the 4 visual tokens"):
        Selection(torch.tensor([1]), 4, scores)
    if len(scores) == 4:
        with pytest.raises(PruningError, match=r"got scores that are .*; it needs one score for each"):
            Selection.best(scores, 1)


@pytest.mark.usefixtures("unchecked")
def test_scores_are_floats_without_their_graph() -> None:
    held = Selection(torch.tensor([1]), 2, torch.ones(2, requires_grad=True) * 2).scores
    assert not held.requires_grad
    whole = Selection(torch.tensor([1]), 2, torch.tensor([1, 2])).scores
    assert whole.dtype == torch.float32


def test_of_equal_scores_the_first_are_best() -> None:
    assert Selection.best(torch.tensor([1.0, 2, 2, 2, 1]), 2).kept.tolist() == [1, 2]
    assert Selection.best(torch.zeros(5000), 100).kept.tolist() == list(range(100))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("count", [0, -1, 1.5, None])
def test_counts_that_cannot_be_kept(count: Any) -> None:
    for make, given in ((Selection.best, torch.ones(4)), (Selection.first, torch.arange(4))):
        with pytest.raises(PruningError, match=r"told to keep .*an integer of at least 1"):
            make(given, count)


def test_what_is_merged_goes_along_to_a_device() -> None:
    moved = Selection(torch.tensor([1]), 4, merged=MERGE).to(torch.device("meta"))
    assert moved.kept.is_meta
    assert moved.merged.weights.is_meta


def test_a_source_without_weight_counts_nowhere() -> None:
    merge = Merge(torch.tensor([0, 0, 0]), torch.tensor([1, 3, 2]), torch.tensor([0.5, 0.5, 0.0]))
    assert Selection(torch.tensor([1]), 4, merged=merge).sizes().tolist() == [2.0]


# The tokens of a tile and of what is left, with their statistics.


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


# Layouts: squares of patches, tiles in sequence, what is left of them, and what shares a region.


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

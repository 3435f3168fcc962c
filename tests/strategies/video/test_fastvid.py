"""FastVID's segments and anchors, and what it keeps besides the frames, computed by hand."""

from typing import Any

import pytest
import torch
from helpers.tokens.scored import scored

from tokenprune import FastVID
from tokenprune.tokens import Layout, VisualTokens

#: Two frames of three places, with a newline token after each.
WITH_NEWLINES = Layout(
    ((2, 1, 4),),
    n_tiles=2,
    to_tokens=lambda values: torch.cat([values, values.amax(1, keepdim=True)], 1).flatten(),
    newlines=torch.tensor([False, False, False, True] * 2),
)


def segments(degrees: list[float], **settings: Any) -> list[tuple[int, int]]:
    """Return the segments of frames whose mean features point in these directions. Their two places are far from the
    mean, on either side of it."""
    angles = torch.tensor(degrees).deg2rad()
    means = torch.stack([angles.cos(), angles.sin()], 1)
    away = 5 * torch.randn(len(degrees), 2, generator=torch.Generator().manual_seed(0))
    frames = torch.stack([means + away, means - away], 1)
    tokens = VisualTokens(frames.flatten(0, 1), Layout(((len(degrees), 1, 2),), len(degrees)))
    return [(one.start, one.stop) for one in FastVID(**settings).segments_of(tokens.frames, tokens.features)]


def test_cuts_are_where_the_means_of_neighbours_are_least_alike() -> None:
    """They are 10, 30, 5 and 55 degrees apart."""
    degrees = [0.0, 10, 40, 45, 100]
    assert segments(degrees, segments=1, threshold=-1.0) == [(0, 5)]
    assert segments(degrees, segments=2, threshold=-1.0) == [(0, 4), (4, 5)]
    assert segments(degrees, segments=3, threshold=-1.0) == [(0, 2), (2, 4), (4, 5)]
    assert segments(degrees, segments=1, threshold=0.9) == [(0, 2), (2, 4), (4, 5)]  # the cosine of 26 degrees
    assert segments(degrees, segments=2, threshold=0.99) == [(0, 1), (1, 2), (2, 4), (4, 5)]  # of 8 degrees


def test_frames_that_are_the_same_are_not_cut_apart_by_the_highest_threshold() -> None:
    tokens = VisualTokens(torch.tensor([[1.0, 0.0]] * 6), Layout(((3, 1, 2),), 3))
    assert FastVID(segments=1, threshold=1.0).segments_of(tokens.frames, tokens.features) == [slice(0, 3)]


def test_tokens_join_the_anchor_of_their_direction() -> None:
    """The products with the first anchor, (10, 1), are higher than with the second, (0.1, 1), which most point like."""
    features = torch.tensor([[9.0, 9], [1, 2], [5, 0], [9, 9], [10, 1], [0.1, 1]])
    tokens = scored([9.0, 1, 1], Layout(((2, 1, 3),), 2), features)
    selection = FastVID(keep=4, contextual=0.5, segments=1, threshold=-1.0).select(tokens)
    assert selection.kept.tolist() == [0, 3, 4, 5]
    anchors = selection.kept[selection.merged.targets].tolist()
    assert {*zip(selection.merged.sources.tolist(), anchors, strict=True)} == {(4, 4), (5, 5), (1, 5), (2, 4)}


@pytest.mark.parametrize(("keep", "kept"), [(2, [4, 7]), (3, [0, 4, 7]), (6, [0, 2, 3, 4, 6, 7])])
def test_newline_tokens_are_kept_for_at_most_half_of_the_budget(keep: int, kept: list[int]) -> None:
    """What they leave is shared by the frames, whose first and third places are attended to most."""
    tokens = scored([5.0, 1, 3], WITH_NEWLINES, torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    assert FastVID(keep=keep, contextual=0.0).select(tokens).kept.tolist() == kept

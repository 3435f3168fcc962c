"""VisionZip against numbers computed by hand."""

import torch
from helpers.tokens.by_hand import tokens_of, two_heads

from tokenprune import Selection, VisionZip
from tokenprune.tokens import VisualTokens

# The tokens 1 and 4 are attended to most. Of the others, the keys of 2 and 6 are most like that of 0 (cosines 0.8
# and 0.994 against 0.6 and 0.110), and that of 5 like that of 3, which is longer.
ATTENTION = [1.0, 4.0, 1.0, 1.0, 2.0, 1.0, 1.0]
KEYS = [[1.0, 0.0], [0.0, 0.0], [0.8, 0.6], [0.0, 5.0], [0.0, 0.0], [0.6, 0.8], [0.9, 0.1]]
FEATURES = [[10.0], [20.0], [30.0], [40.0], [50.0], [60.0], [70.0]]


def merged(selection: Selection, tokens: VisualTokens) -> list[float]:
    return selection.merged.apply(tokens.features, selection.kept)[:, 0].tolist()


def test_dominant_and_contextual() -> None:
    """Left are 0 2 3 5 6; two at even steps of 5 // 2 are 0 and 3."""
    tokens = tokens_of(ATTENTION, KEYS, FEATURES)
    selection = VisionZip(keep=4, contextual=0.5).select(tokens)
    assert selection.kept.tolist() == [0, 1, 3, 4]
    assert merged(selection, tokens) == [10 + (30 + 70) / 2, 20, 40 + 60, 50]
    torch.testing.assert_close(selection.scores, torch.tensor(ATTENTION) / 11)
    assert VisionZip(keep=4, contextual=0.4).select(tokens).kept.tolist() == [0, 1, 3, 4]  # 1.6 of four, rounded


def test_keys_are_means_over_heads() -> None:
    """In the mean of both heads, the key of 2 is that of 0, and 45 degrees from that of 1. In the first head it is that
    of 1, and in both side by side it is nearer to 1 too: cosines of .82 and 0."""
    attention, features = [1.0, 1.0, 1.0, 9.0], [[10.0], [20.0], [30.0], [40.0]]
    first = tokens_of(attention, [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0]], features)
    second = tokens_of(attention, [[1.0, 0.0], [-1.0, 1.0], [0.0, 1.0], [1.0, 1.0]], features)
    tokens = two_heads(first, second)
    selection = VisionZip(keep=3, contextual=2 / 3).select(tokens)
    assert selection.kept.tolist() == [0, 1, 3]
    assert merged(selection, tokens) == [10 + 30, 20, 40]


def test_newline_tokens_are_not_merged() -> None:
    """With 2 a newline token, left are 0 3 5 6, with a step of 2: 0 and 5. 3 goes to 5, and 6 to 0."""
    tokens = tokens_of(ATTENTION, KEYS, FEATURES, newlines=[2])
    selection = VisionZip(keep=4, contextual=0.5).select(tokens)
    assert selection.kept.tolist() == [0, 1, 4, 5]
    assert merged(selection, tokens) == [10 + 70, 20, 50, 60 + 40]


def test_newline_tokens_fill_the_budget() -> None:
    """Behind the dominant 1 4 0 there are a patch, 6, and newline tokens."""
    tokens = tokens_of(ATTENTION, KEYS, FEATURES, newlines=[2, 3, 5])
    selection = VisionZip(keep=6, contextual=0.5).select(tokens)
    assert selection.kept.tolist() == [0, 1, 2, 3, 4, 6]
    assert selection.merged is None or len(selection.merged.sources) == 0


def test_where_only_newline_tokens_are_not_dominant_nothing_is_merged() -> None:
    """Behind the dominant 1 4 0 2 3 there are 5 and 6."""
    tokens = tokens_of(ATTENTION, KEYS, FEATURES, newlines=[5, 6])
    selection = VisionZip(keep=6, contextual=1 / 6).select(tokens)
    assert selection.kept.tolist() == [0, 1, 2, 3, 4, 5]
    assert selection.merged is None


def test_the_paper_s_shares() -> None:
    for keep, contextual in ((64, 10), (128, 20), (192, 30)):
        assert round(VisionZip().contextual * keep) == contextual


def test_without_contextual_tokens_and_of_a_whole_image_nothing_is_merged() -> None:
    tokens = tokens_of(ATTENTION, KEYS, FEATURES)
    best = VisionZip(keep=2, contextual=0.0).select(tokens)
    assert best.kept.tolist() == [1, 4]
    assert best.merged is VisionZip(keep_ratio=1.0).select(tokens).merged is None

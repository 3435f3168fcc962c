"""HoloV: shares of crops, computed by hand."""

import torch
from helpers.tokens.by_hand import tokens_of

from tokenprune import HoloV
from tokenprune.strategies.pre_llm.holov import order_by_crop


def kept(scores: list[float], n_crops: int, n_kept: int) -> list[int]:
    return sorted(order_by_crop(torch.tensor(scores), n_crops, n_kept)[:n_kept].tolist())


def test_shares_are_those_of_the_mean_attention() -> None:
    """Means of 6, 3 and 1 of 10. Of four tokens: 2.4, 1.2 and 0.4, and the one that is left goes to the largest: 3, 1
    and 0. Of six: 3.6, 1.8 and 0.6: two are left, for the first two crops."""
    scores = [8.0, 4, 6, 6, 1, 5, 2, 4, 1, 1, 1, 1]
    assert kept(scores, 3, 4) == [0, 2, 3, 5]
    assert kept(scores, 3, 6) == [0, 1, 2, 3, 5, 7]
    # With the same means: the last crop still gets none, though its best token is better than the second's next.
    assert kept([8.0, 4, 6, 6, 9, 1, 1, 1, 3, 0.3, 0.3, 0.4], 3, 6) == [0, 1, 2, 3, 4, 5]


def test_uneven_crops() -> None:
    """Seven tokens in crops of 3, 2 and 2, with means of 8, 9 and 9 of 26. Of three: 0.92, 1.04 and 1.04, and the
    one that is left goes to the second crop."""
    scores = [8.0, 8, 8, 8, 10, 10, 8]
    assert kept(scores, 3, 3) == [3, 4, 5]
    tokens = tokens_of(scores, [[0.0]] * 7, [[0.0]] * 7)
    assert HoloV(keep=3, crops=3).select(tokens).kept.tolist() == [3, 4, 5]
    assert HoloV(keep=3, crops=1).select(tokens).kept.tolist() == [0, 4, 5]


def test_what_a_crop_cannot_hold_goes_to_the_best_of_the_others() -> None:
    """Nearly all attention is on the first crop of two: it would get four of the four tokens."""
    assert kept([50.0, 50, 1, 2, 1, 1, 1, 1], 4, 4) == [0, 1, 2, 3]


def test_crops_that_nothing_attends_to() -> None:
    """As after a step that has left only such tokens: all crops get equal shares, instead of 0 / 0."""
    assert kept([0.0] * 8, 4, 4) == [0, 2, 4, 6]
    assert kept([0.0] * 8, 4, 6) == [0, 1, 2, 3, 4, 6]

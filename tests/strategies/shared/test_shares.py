"""How frames share a budget, and which of their tokens are best, by hand."""

from __future__ import annotations

import pytest
import torch

from tokenprune.strategies.shared.shares import best_of_frames, evenly_spaced, largest_remainders


@pytest.mark.parametrize(
    ("weights", "count", "least", "most", "expected"),
    [
        ([1, 1, 1], 9, 1, 5, [3, 3, 3]),
        ([1, 1, 1], 11, 1, 5, [4, 4, 3]),
        ([3, 1], 10, 1, 9, [7, 3]),
        ([100, 1, 1], 12, 1, 5, [5, 4, 3]),
        ([1, 1, 1], 2, 1, 5, [1, 1, 0]),
        ([1, 2], 10, 0, 5, [5, 5]),
        ([100, 1, 1], 3, 1, 5, [1, 1, 1]),  # just enough for all
        ([3, 1], 3, 2, 9, [2, 1]),  # not enough
        ([5, 3, 2], 9, 0, 9, [4, 3, 2]),  # of 4.5, 2.7 and 1.8, the last two are rounded up
    ],
)
def test_largest_remainders(weights: list[int], count: int, least: int, most: int, expected: list[int]) -> None:
    assert largest_remainders([float(weight) for weight in weights], count, least, most) == expected


def test_best_of_frames_takes_the_first_of_equal_scores() -> None:
    scores = torch.tensor([[1.0, 3, 3, 3], [0, 0, 0, 0], [4, 3, 2, 1]])
    marked = best_of_frames(scores, torch.tensor([2, 1, 0]))
    assert marked.tolist() == [[False, True, True, False], [True, False, False, False], [False] * 4]


def test_places_of_the_first_frame_are_the_middles_of_equal_parts() -> None:
    """Of ten: 5; of fives: 2 and 7; of all: each."""
    found = [evenly_spaced(10, count, torch.device("cpu")).tolist() for count in (1, 2, 10)]
    assert found == [[5], [2, 7], list(range(10))]

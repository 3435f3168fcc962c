"""FoPru: which attention it ranks by, and rows of different lengths, computed by hand."""

from typing import Any

import pytest
from helpers.tokens.scored import scored

from tokenprune import FoPru
from tokenprune.tokens import Layout


@pytest.mark.parametrize("settings", [{}, {"score": "cls"}], ids=["column", "cls"])
def test_heads_are_averaged_or_the_highest_counts(settings: dict[str, Any]) -> None:
    """Of the heads .6, .35, .05 and .05, .45, .5, the means are .325, .4, .275 and the maxima .6, .45, .5. Half of each
    goes to the CLS token."""
    tokens = scored([[0.6, 0.35, 0.05], [0.05, 0.45, 0.5]], cls=1.0)
    assert FoPru(keep=1, **settings).select(tokens).kept.tolist() == [1]
    assert FoPru(keep=1, heads="max", **settings).select(tokens).kept.tolist() == [0]


def test_what_patches_or_the_cls_token_attend_to() -> None:
    """To the CLS token, they weigh the reciprocals: 1, 1/2 and 1/4."""
    tokens = scored([[1.0, 2.0, 4.0]], cls=-1.0)
    assert FoPru(keep=1).select(tokens).kept.tolist() == [2]
    assert FoPru(keep=1, score="cls").select(tokens).kept.tolist() == [0]


def test_rows_of_different_lengths_compete_by_their_means() -> None:
    """A row of two has a mean of 3, one of three a mean of 2.9, which is more in sum, and has the best token."""
    tokens = scored([3.0, 3.0, 2.5, 2.7, 3.5], Layout(((1, 1, 2), (1, 1, 3))))
    assert FoPru(keep=2, mode="row").select(tokens).kept.tolist() == [0, 1]
    assert FoPru(keep=3, mode="row").select(tokens).kept.tolist() == [0, 1, 4]  # trimmed to its best
    assert FoPru(keep=2).select(tokens).kept.tolist() == [0, 4]

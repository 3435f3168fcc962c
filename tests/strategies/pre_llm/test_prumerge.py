"""PruMerge and PruMerge+ against numbers computed by hand."""

from collections.abc import Sequence

import pytest
import torch
from helpers.tokens.by_hand import tokens_of, two_heads

from tokenprune import PruMerge
from tokenprune.strategies.pre_llm.prumerge import fill_evenly, nearest_neighbours, outliers

# Attention in tenths. Keys count by direction: 0 and 2 alike, 1 and 3 alike, 4 between.
ATTENTION = [0.1, 0.4, 0.1, 0.1, 0.3]
KEYS = [[1.0, 0.0], [0.0, 1.0], [20.0, 2.0], [0.1, 1.0], [1.0, 1.0]]
FEATURES = [[10.0], [20.0], [30.0], [40.0], [50.0]]


def values(strategy: PruMerge, newlines: Sequence[int] = ()) -> tuple[list[int], list[float]]:
    tokens = tokens_of(ATTENTION, KEYS, FEATURES, newlines)
    selection = strategy.select(tokens)
    return selection.kept.tolist(), selection.merged.apply(tokens.features, selection.kept)[:, 0].tolist()


def test_neighbours_are_added_by_the_attention_they_get() -> None:
    """Kept are 1 and 4. Most like the key of 1 are those of 3 (cosine 0.995) and 4 (0.707); like that of 4, those of
    2 and 3 (0.774 each)."""
    kept, merged = values(PruMerge(keep=2, neighbours=2))
    assert kept == [1, 4]
    assert merged == pytest.approx([20 + 0.1 * 40 + 0.3 * 50, 50 + 0.1 * 30 + 0.1 * 40])


def test_keys_of_all_heads_side_by_side() -> None:
    """The key of 2 has a cosine of .82 to that of 1, and of 0 to that of 0. Of means over heads, they are .71 and 1."""
    attention, features = [0.2, 0.2, 0.6], [[10.0], [20.0], [30.0]]
    first = tokens_of(attention, [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], features)
    second = tokens_of(attention, [[1.0, 0.0], [-1.0, 1.0], [0.0, 1.0]], features)
    selection = PruMerge(keep=1, neighbours=1).select(tokens := two_heads(first, second))
    assert selection.merged.apply(tokens.features, selection.kept)[:, 0].tolist() == pytest.approx([30 + 0.2 * 20])


def test_newline_tokens_are_not_merged() -> None:
    kept, merged = values(PruMerge(keep=2, neighbours=2), newlines=[4])
    assert kept == [1, 4]
    assert merged == pytest.approx([20 + 0.1 * 40 + 0.1 * 30, 50])


def test_two_patches_are_merged_and_one_is_as_it_is() -> None:
    tokens = tokens_of([0.5, 0.3, 0.2], [[1.0, 0.0]] * 3, [[10.0], [20.0], [30.0]], newlines=[2])
    pair = PruMerge(keep=1).select(tokens)
    assert pair.merged.apply(tokens.features, pair.kept)[:, 0].tolist() == pytest.approx([10 + 0.3 * 20])
    single = tokens_of([0.5, 0.3, 0.2], [[1.0, 0.0]] * 3, [[10.0], [20.0], [30.0]], newlines=[1, 2])
    assert PruMerge(keep=1).select(single).merged is None


def test_outliers_are_beyond_the_whiskers() -> None:
    """Of 1 2 3 4 5 6 7 8 and 20, the quartiles are 3 and 7: outliers are above 7 + 1.5 * 4 = 13."""
    assert outliers(torch.tensor([1.0, 2, 3, 4, 20, 5, 6, 7, 8])).nonzero()[:, 0].tolist() == [4]
    assert not outliers(torch.tensor([1.0, 2, 3, 4, 13, 5, 6, 7, 8])).any()
    assert outliers(torch.tensor([1.0, 2, 3, 4, 13.1, 5, 6, 7, 8])).sum() == 1


def test_plus_spreads_the_rest_evenly() -> None:
    """The best is 5; of 0 1 2 3 4 6 7 8, four at even distances are 1 3 6 8. 3 is no patch in the second case, so that
    of seven patches those in the middle of each quarter are taken."""
    order = torch.tensor([5, 8, 7, 6, 4, 3, 2, 1, 0])
    plain = torch.zeros(9, dtype=torch.bool)
    assert fill_evenly(order, 1, 5, plain)[:5].tolist() == [5, 1, 3, 6, 8]
    assert fill_evenly(order, 1, 5, plain.index_fill(0, torch.tensor([3]), True))[:5].tolist() == [5, 0, 2, 6, 8]
    assert fill_evenly(order, 7, 5, plain).tolist()[:5] == [5, 8, 7, 6, 4]  # more outliers than budget
    assert sorted(fill_evenly(order, 1, 5, plain).tolist()) == list(range(9))


def test_newline_tokens_are_no_outliers() -> None:
    """Two patches stand out, and the newline tokens of their rows with them."""
    attention = [0.9, 0.01, 0.02, 0.03, 0.9, 0.01, 0.8, 0.02, 0.03, 0.8]
    tokens = tokens_of(attention, [[1.0, 0.0]] * 10, [[1.0]] * 10, [4, 9])
    assert PruMerge(keep=2, plus=True).select(tokens).kept.tolist() == [0, 6]


def test_neighbours_leave_oneself_out() -> None:
    keys = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    near = nearest_neighbours(torch.arange(4), keys, 2)
    assert [set(row) for row in near[:3].tolist()] == [{1, 2}, {0, 2}, {0, 1}]
    assert 3 not in near[3].tolist()
    assert nearest_neighbours(torch.arange(4), keys, 32).shape == (4, 3)


@pytest.mark.parametrize("plus", [False, True])
def test_nothing_but_newline_tokens(plus: bool) -> None:
    """As an earlier strategy may leave them: there are no patches whose keys could be compared."""
    tokens = tokens_of([1.0, 4, 2, 3], [[1.0]] * 4, [[0.0]] * 4, newlines=range(4))
    assert PruMerge(keep=2, plus=plus).select(tokens).kept.tolist() == [1, 3]

"""What a Selection accepts and holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tokenprune import PruningError
from tokenprune.selection import Merge, Selection

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
    assert held is not None
    assert not held.requires_grad
    whole = Selection(torch.tensor([1]), 2, torch.tensor([1, 2])).scores
    assert whole is not None
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
    assert moved.merged is not None
    assert moved.merged.weights.is_meta


def test_a_source_without_weight_counts_nowhere() -> None:
    merge = Merge(torch.tensor([0, 0, 0]), torch.tensor([1, 3, 2]), torch.tensor([0.5, 0.5, 0.0]))
    assert Selection(torch.tensor([1]), 4, merged=merge).sizes().tolist() == [2.0]

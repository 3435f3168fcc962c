"""Merges as means, on parts of an image, and in sequence, by hand."""

from dataclasses import replace

import pytest
import torch

from tokenprune import PruningError
from tokenprune.selection import Merge, Selection, merge, scores_of_all

TARGETS, SOURCES = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 3])


def test_a_mean_by_importance() -> None:
    """An importance may be 0, as long as another one of the same target is not."""
    for importance, expected in (([3.0, 1, 9], [0.75, 0.25, 1]), ([0.0, 2, 5], [0, 1, 1])):
        merge = Merge.mean(TARGETS, SOURCES, torch.tensor(importance), 2)
        assert merge.weights.tolist() == expected
        Selection(torch.tensor([0, 3]), 4, merged=merge)


@pytest.mark.parametrize("importance", [[3.0, -1.0, 9.0], [0.0, 0.0, 9.0], [1.0, torch.nan, 1.0]])
def test_importances_without_a_mean(importance: list[float]) -> None:
    merge = Merge.mean(TARGETS, SOURCES, torch.tensor(importance), 2)
    with pytest.raises(PruningError, match=r"weights that are not finite.*Merge\.mean takes importances of"):
        Selection(torch.tensor([0, 3]), 4, merged=merge)


def test_a_part_of_an_image() -> None:
    """Tokens 4 to 7 of eight, of which the first and the last are kept: third and fifth of all that are."""
    whole = Merge(TARGETS, SOURCES, torch.tensor([0.5, 0.5, 1.0])).in_image(torch.arange(4, 8), torch.tensor([2, 4]))
    assert whole.targets.tolist() == [2, 2, 4]
    assert whole.sources.tolist() == [4, 5, 7]
    assert whole.weights.tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("n_visual", [6, 600], ids=["as a product", "added up"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_summed_in_float32(n_visual: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 + 1 + 1 is 258, which bfloat16 has, unlike 257; blocks of one pair have sums in between. A kept token that is
    no target keeps its bits, whatever else is NaN."""
    monkeypatch.setattr(merge, "PAIR_ELEMENTS", 2)
    features = torch.full((n_visual, 2), torch.nan, dtype=dtype)
    features[:3] = torch.tensor([256.0, 1.0, 1.0], dtype=dtype)[:, None]
    added = Merge(torch.zeros(3).long(), torch.arange(3), torch.ones(3))
    assert added.apply(features, torch.tensor([0, 4]))[0].tolist() == [258.0, 258.0]
    features[4] = 0.1
    assert torch.equal(added.apply(features, torch.tensor([0, 4]))[1], features[4])
    assert features[0, 0] == 256.0
    features[0], features[1:3] = 255.0, 254.0
    mean = replace(added, weights=torch.ones(3) / 3)  # in bfloat16, three thirds would be a bit more than 1
    expected = torch.full((2,), 763 / 3, dtype=dtype)  # which is nearer to 254 than to 255
    torch.testing.assert_close(mean.apply(features, torch.tensor([0, 4]))[0], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("n_visual", [6, 600], ids=["as a product", "added up"])
def test_a_sum_beyond_float16(n_visual: int) -> None:
    """PruMerge and VisionZip add tokens to one that keeps its weight. Features that were infinite before stay so."""
    features = torch.full((n_visual, 3), 60000.0, dtype=torch.float16)
    features[:, 1] *= -1
    features[1, 2] = torch.inf
    merged = Merge(TARGETS, SOURCES, torch.ones(3)).apply(features, torch.tensor([0, 3]))
    assert merged[0].tolist() == [65504, -65504, torch.inf]
    assert merged[1].tolist() == [60000, -60000, 60000]


@pytest.mark.parametrize("n_visual", [6, 600], ids=["as a product", "added up"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_infinity_stays_with_its_own_target(n_visual: int, dtype: torch.dtype) -> None:
    """By channel: an infinity of either sign, two that cancel out, NaN, and what no target is merged from."""
    inf, nan = torch.inf, torch.nan
    features = torch.ones(n_visual, 6, dtype=dtype)
    features[0] = torch.tensor([inf, -inf, inf, nan, 1, 1])
    features[1] = torch.tensor([1, 1, -inf, 1, 1, 1])
    features[2] = torch.tensor([1, 1, 1, 1, inf, nan])
    targets, weights = torch.tensor([0, 0, 1, 1]), torch.tensor([0.5, 0.5, -1.0, 0.0])
    merged = Merge(targets, torch.tensor([0, 1, 3, 4]), weights).apply(features, torch.tensor([0, 3]))
    expected = torch.tensor([[inf, -inf, nan, nan, 1, 1], [-1.0] * 6], dtype=dtype)
    torch.testing.assert_close(merged, expected, equal_nan=True)
    turned = Merge(targets, torch.tensor([3, 4, 0, 1]), weights).apply(features, torch.tensor([0, 3]))
    expected = torch.tensor([[1.0] * 6, [-inf, inf, nan, nan, -1, -1]], dtype=dtype)  # -inf or inf times 0 is NaN
    torch.testing.assert_close(turned, expected, equal_nan=True)


@pytest.mark.parametrize("n_visual", [6, 600], ids=["as a product", "added up"])
def test_a_pair_that_is_given_twice_counts_twice(n_visual: int) -> None:
    merge = Merge(torch.tensor([1, 1]), torch.tensor([2, 2]), torch.tensor([0.25, 0.5]))
    assert merge.apply(torch.full((n_visual, 1), 4.0), torch.tensor([0, 3])).tolist() == [[4.0], [3.0]]


def test_one_after_the_other_in_any_order() -> None:
    """The second merges results of the first, tokens that it left alone, and some of both."""
    features, before = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 3, 4, 6])
    first = Merge(torch.tensor([2, 0, 2, 0]), torch.tensor([5, 0, 4, 1]), torch.tensor([0.3, 0.7, 0.5, 0.2]))
    middle = first.apply(features, before)
    for targets, sources in (([1, 0, 1], [2, 1, 3]), ([0, 0], [0, 2]), ([1], [1])):
        kept = torch.tensor([0, 3])
        second = Merge(torch.tensor(targets), torch.tensor(sources), torch.arange(1.0, len(targets) + 1))
        both = first.then(second, before, kept).apply(features, before[kept])
        torch.testing.assert_close(both, second.apply(middle, kept))


def test_scores_of_what_is_left_among_all() -> None:
    left = torch.tensor([1, 3])
    found = scores_of_all(torch.tensor([5.0, 7.0]), left, 4)
    assert found[left].tolist() == [5.0, 7.0]
    assert found[[0, 2]].isnan().all()
    assert scores_of_all(torch.tensor([5.0, 7.0]), left, 4, missing=-1.0).tolist() == [-1, 5, -1, 7]  # type: ignore[union-attr]
    assert scores_of_all(None, left, 4) is None

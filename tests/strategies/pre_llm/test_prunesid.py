"""PruneSID: groups, suppression and shares, computed by hand."""

import pytest
import torch
from helpers.tokens.by_hand import at, tokens_of

from tokenprune import PruneSID
from tokenprune.strategies.pre_llm import prunesid
from tokenprune.strategies.pre_llm.prunesid import component_of_each, mean_cosine, shares_of_groups, suppress


@pytest.mark.parametrize("copies", [1, 3], ids=["fewer tokens than channels", "more"])
def test_groups_are_principal_components(copies: int) -> None:
    """Less their mean, two tokens are multiples of (1, -1, 1, -1) and two of (1, 1, -1, -1); the former vary more."""
    first, second = torch.tensor([0.9, 0.1, 0.9, 0.1]), torch.tensor([0.6, 0.6, 0.4, 0.4])
    values = torch.stack([second, first, 1 - first, 1 - second]).repeat(copies, 1)
    assert component_of_each(values.logit(), 2).tolist() == [1, 0, 0, 1] * copies
    assert component_of_each(values.logit(), 1).tolist() == [0, 0, 0, 0] * copies


@pytest.mark.parametrize("n_visual", [5, 60])
def test_components_are_singular_vectors(n_visual: int) -> None:
    """Fewer tokens than channels, and more, of which the products of channels are decomposed."""
    features = torch.randn(n_visual, 8, generator=torch.Generator().manual_seed(0)).double()
    centred = features.sigmoid() - features.sigmoid().mean(1, keepdim=True)
    vectors = torch.linalg.svd(centred, full_matrices=False).U[:, :4]
    assert component_of_each(features, 4).tolist() == vectors.abs().argmax(1).tolist()


def test_components_are_of_sigmoids() -> None:
    """Less their mean, .5, -.5, 0, 0 once and 0, 0, .38, -.38 three times, which is more. The features themselves vary
    most in the first token."""
    features = torch.tensor([[30.0, -30.0, 0.0, 0.0]] + 3 * [[0.0, 0.0, 2.0, -2.0]])
    assert component_of_each(features, 2).tolist() == [1, 0, 0, 0]


def test_the_cls_token_s_attention_decides() -> None:
    """The patches attend to all alike."""
    tokens = tokens_of([0.1, 0.4, 0.5], [[0.0]] * 3, at(0, 60, 90).tolist())
    assert PruneSID(keep=1).select(tokens).kept.tolist() == [2]


@pytest.mark.parametrize("seed", range(12))
def test_as_many_components_as_channels(seed: int) -> None:
    """One of them is that of a variance of zero, in which no token weighs anything."""
    features = torch.randn(256, 32, generator=torch.Generator().manual_seed(seed))
    groups = component_of_each(features, 32)
    assert len(groups.unique()) > 20
    assert torch.equal(groups, component_of_each(features, 31))


def test_the_mean_cosine_by_hand() -> None:
    """Of 0, 60 and 90 degrees: .5, 0 and cos 30."""
    assert float(mean_cosine(at(0, 60, 90))) == pytest.approx((0.5 + 3**0.5 / 2) / 3, abs=1e-6)
    assert float(mean_cosine(at(0))) == 0


def test_each_token_suppresses_those_of_its_group_that_resemble_it() -> None:
    """At a threshold of cos 30: of the first group 10 degrees is best and suppresses 0, then 95 suppresses 90. The
    token at 0 degrees in a group of its own is taken."""
    scores, groups = torch.tensor([0.5, 0.9, 0.2, 0.3, 0.1]), torch.tensor([0, 0, 0, 0, 2])
    order, n_free = suppress(at(0, 10, 90, 95, 0), scores, groups, 0.866)
    assert order.argsort().tolist() == [1, 3, 4, 0, 2]
    assert n_free.tolist() == [2, 0, 1]


@pytest.mark.parametrize("threshold", [1.0, 1.5])
def test_nothing_is_suppressed_from_a_cosine_of_one_on(threshold: float) -> None:
    order, n_free = suppress(at(0, 0, 0), torch.tensor([0.1, 0.3, 0.2]), torch.zeros(3).long(), threshold)
    assert order.tolist() == [2, 0, 1]
    assert n_free.tolist() == [3]


def test_shares_by_hand() -> None:
    """Eight: one of each group that has any, and 5 in proportion to 6, 3 and 1: up to 3, 4.5 and 5, so 3, 1 and 1. The
    third may keep one only, which leaves one more to the first."""
    assert shares_of_groups([10, 6, 4, 0], [6, 3, 1, 0], 8, 5) == [5, 2, 1, 0]


def test_limits_grow_until_the_budget_fits() -> None:
    """Only one of each was not suppressed; with limits of two there is room for four, but for none more."""
    assert shares_of_groups([3, 3], [1, 1], 4, 5) == [2, 2]
    assert shares_of_groups([1, 9], [1, 9], 8, 5) == [1, 7]


def test_limits_grow_by_one_where_they_add_up_to_the_budget() -> None:
    """Of 5, 5 and 1 there is room for 11, but for none more: 6, 6 and 2. One of each, and 8 in proportion to 18, 6 and
    1: up to 5.76, 7.68 and 8, so 6, 2 and 0. The first may keep 6 only, which leaves one more to the second."""
    assert shares_of_groups([20, 20, 20], [18, 6, 1], 11, 5) == [6, 4, 1]


def test_the_threshold_grows_with_the_budget() -> None:
    """Of two, at 0, 60 and 90 degrees, with a mean cosine of .4553: the threshold is 2 / 32 of it for each `similar`.
    Below a cosine of .5, the token at 0 degrees suppresses that at 60; above it, that at 60 is next."""
    features = at(0, 60, 90) * torch.tensor([[3.0], [0.1], [9.0]])  # lengths do not count
    tokens = tokens_of([0.5, 0.4, 0.1], [[0.0]] * 3, features.tolist())
    assert PruneSID(keep=2, similar=17.5).select(tokens).kept.tolist() == [0, 2]
    assert PruneSID(keep=2, similar=17.6).select(tokens).kept.tolist() == [0, 1]


def test_groups_and_the_most_that_they_keep_follow_from_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group for every 4 tokens of the budget, of at most 5 for every 64, as in the released code."""
    seen: list[int] = []

    def components(features: torch.Tensor, n_components: int) -> torch.Tensor:
        seen.append(n_components)
        return component_of_each(features, n_components)

    def shares(sizes: list[int], n_free: list[int], n_kept: int, cap: int) -> list[int]:
        seen.append(cap)
        return shares_of_groups(sizes, n_free, n_kept, cap)

    monkeypatch.setattr(prunesid, "component_of_each", components)
    monkeypatch.setattr(prunesid, "shares_of_groups", shares)
    tokens = tokens_of(
        [1.0] * 80, [[0.0]] * 80, torch.randn(80, 24, generator=torch.Generator().manual_seed(0)).tolist()
    )
    for n_kept, n_groups, cap in ((3, 1, 5), (63, 15, 5), (64, 16, 5), (65, 16, 10)):
        PruneSID(keep=n_kept).select(tokens)
        assert seen == [n_groups, cap]
        seen.clear()

"""SCOPE: coverage and saliency, computed by hand."""

import pytest
import torch
from helpers.simulated.pretended import Elsewhere, Pretended
from helpers.tokens.by_hand import at, tokens_of
from helpers.tokens.scored import scored

from tokenprune import SCOPE
from tokenprune.strategies.pre_llm.scope import most_covering
from tokenprune.strategies.shared import similarity


def test_coverage_by_hand() -> None:
    """Cosines of 0, 60 and 90 degrees: .5 between 0 and 60, .866 between 60 and 90, 0 between 0 and 90. The columns sum
    up to 1.5, 2.366 and 1.866: 60 degrees is first. It covers .5, 1 and .866; 0 then adds .5, and 90 adds .134."""
    vectors, even = at(0, 60, 90), torch.ones(3)
    assert most_covering(vectors, even, 3).tolist() == [1, 0, 2]
    # With saliency, 90 degrees is worth 10 * 1.866 at first, and then 10 * .134 against .5.
    assert most_covering(vectors, torch.tensor([1.0, 1, 10]), 2).tolist() == [2, 0]
    assert most_covering(vectors, torch.tensor([1.0, 10, 10]), 2).tolist() == [1, 2]


def test_the_power_of_the_attention() -> None:
    """By coverage alone 60 degrees, with 2.366 against 1.5 of 0 degrees. The latter gets 3 times the attention:
    4.5, and with a power of .4 2.33."""
    tokens = tokens_of([3.0, 1.0, 1.0], [[0.0]] * 3, at(0, 60, 90).tolist())
    kept = {alpha: SCOPE(keep=1, alpha=alpha).select(tokens).kept.tolist() for alpha in (0.0, 0.4, 1.0)}
    assert kept == {0.0: [1], 0.4: [1], 1.0: [0]}


def test_opposite_vectors_cover_nothing() -> None:
    """A negative cosine is no coverage: of two opposites each covers itself only."""
    assert most_covering(at(0, 10, 180), torch.ones(3), 2).tolist() == [0, 2]


def test_all_ways_choose_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stored cosines, on an accelerator, where the CPU never waits, and with recomputed cosines."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(40, 6, generator=generator), dim=1)
    saliency = torch.rand(40, generator=generator)
    stored = most_covering(vectors, saliency, 12)
    with Pretended() as done:
        elsewhere = most_covering(Elsewhere(vectors), Elsewhere(saliency), 12)
    assert isinstance(elsewhere, Elsewhere)
    assert elsewhere.held.tolist() == stored.tolist()
    assert not done.waits
    monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", 300)
    assert most_covering(vectors, saliency, 12).tolist() == stored.tolist()
    assert len(stored.unique()) == 12


@pytest.mark.parametrize("block", [300, 10_000])
def test_no_copy_is_chosen_twice(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """In a still video, most kept tokens add no coverage, whether cosines are stored or not."""
    monkeypatch.setattr(similarity, "BLOCK_ELEMENTS", block)
    still = at(0, 40, 80, 120, 160).repeat(20, 1)
    chosen = most_covering(still, torch.linspace(1, 2, 100), 90)
    assert len(chosen.unique()) == 90


def test_lengths_of_features_do_not_count() -> None:
    """By direction, 60 degrees covers most of 0, 60 and 90."""
    features = at(0, 60, 90) * torch.tensor([[3.0], [0.1], [9.0]])
    tokens = tokens_of([1.0, 1.0, 1.0], [[0.0]] * 3, features.tolist())
    assert SCOPE(keep=1).select(tokens).kept.tolist() == [1]


def test_copies_come_last_and_once() -> None:
    assert most_covering(at(0, 0, 90), torch.ones(3), 3).tolist() == [0, 2, 1]


@pytest.mark.parametrize(("attention", "expected"), [([1e-6, 2e-6, 4e-6], [1, 2]), ([0.2, 0.4, 1e-5], [0, 1])])
def test_high_powers_keep_the_order_of_the_attention(attention: list[float], expected: list[int]) -> None:
    """The CLS token keeps the rest to itself. To the tenth power, the former are zeros in single precision."""
    tokens = scored(attention, features=torch.eye(3), cls=1.0, to_cls=1 - sum(attention))
    assert SCOPE(keep=2, alpha=10.0).select(tokens).kept.tolist() == expected
    assert SCOPE(keep=1, alpha=10.0).select(tokens).kept.tolist() == expected[1:]

"""Budgets that adapt to the image: the fewest tokens that carry a share of its importance."""

from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import pytest
import torch
from helpers.tiny import prompt, tiny_llava
from helpers.tokens.scored import ANYRES, scored

import tokenprune
from tokenprune import STRATEGIES, FoPru, ScoreStrategy, SettingError
from tokenprune.engine.select import checked_selection
from tokenprune.tokens import Layout, VisualTokens

ADAPTIVE = [name for name, cls in STRATEGIES.items() if "least" in signature(cls).parameters]
ROW = Layout.raster((1, 1, 10))
#: One token with half of the importance, and one with a quarter.
PEAKED = [10.0, 5.0, *[0.625] * 8]
FLAT = [1.0] * 10


@dataclass(frozen=True)
class Generous(FoPru):
    """Has its own default."""

    least: float = 0.2


def test_a_default_of_a_subclass_is_no_setting_without_effect() -> None:
    assert Generous(keep_ratio=0.5).least == 0.2
    with pytest.raises(SettingError, match=r"least=0\.3 has no effect without mass"):
        Generous(keep_ratio=0.5, least=0.3)


def n_kept(strategy: tokenprune.Strategy, scores: list[float]) -> int:
    return len(strategy.select(scored(scores, ROW)).kept)


def test_an_image_keeps_as_few_tokens_as_carry_the_share() -> None:
    strategy = FoPru(keep_ratio=1.0, mass=0.7, least=0.0)
    assert (n_kept(strategy, PEAKED), n_kept(strategy, FLAT)) == (2, 7)
    assert FoPru(keep_ratio=1.0, mass=0.7).select(scored(PEAKED, ROW)).kept.tolist() == [0, 1]


def test_the_least_by_default_leaves_room_below_a_small_budget() -> None:
    """5 % of the tokens or a fifth of the budget, whichever is less."""
    peaked, layout = [100.0, *[0.01] * 199], Layout.raster((1, 1, 200))

    def kept(strategy: FoPru) -> int:
        return len(strategy.select(scored(peaked, layout)).kept)

    assert kept(FoPru(mass=0.5, keep_ratio=0.6)) == 10
    assert kept(FoPru(mass=0.5, keep_ratio=0.1)) == 4
    assert kept(FoPru(mass=0.5, keep=10)) == 2
    assert kept(FoPru(mass=0.5, keep=1)) == 1
    assert kept(FoPru(mass=0.9, keep_ratio=0.04)) == 1


def test_never_more_than_the_budget_nor_fewer_than_the_least() -> None:
    strategy = FoPru(keep_ratio=0.5, mass=0.7, least=0.3)
    assert (n_kept(strategy, PEAKED), n_kept(strategy, FLAT)) == (3, 5)
    assert n_kept(replace(strategy, keep=1, keep_ratio=None), FLAT) == 1  # a count is also a maximum
    assert n_kept(replace(strategy, mass=1.0), PEAKED) == 5
    assert n_kept(replace(strategy, mass=None, least=FoPru.least), PEAKED) == 5


@pytest.mark.parametrize("name", ADAPTIVE)
def test_rows_of_a_batch_keep_different_numbers(name: str) -> None:
    """Each row keeps the same as alone."""
    model, inputs = tiny_llava(), prompt([1, 1, 2])
    strategy: Any = STRATEGIES[name](keep_ratio=0.9, mass=0.5, least=0.0)  # pyright: ignore[reportCallIssue]
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        model(**inputs)
        images = handle.report.images
    counts = [image.n_kept for image in images]
    assert len(set(counts)) > 1
    for image in images:
        assert image.n_kept == strategy.n_to_keep(image.scores) < strategy.budget(image.n_visual)
    assert handle.report.n_kept == sum(counts)


def test_tiles_have_shares_of_their_own() -> None:
    """A tile keeps the tokens that carry the mass of its own scores, up to its share of the budget."""

    @dataclass(frozen=True)
    class Given(ScoreStrategy):
        def score(self, tokens: VisualTokens) -> torch.Tensor:
            return tokens.features[:, 0]

    scores = torch.ones(29)
    scores[9] = 1000.0  # the second tile has all of it in one token
    strategy = Given(keep=15, mass=0.5, budget_per="tile")
    selection = checked_selection(strategy, VisualTokens(scores[:, None], ANYRES, 0, {}))
    assert ANYRES.tiles[selection.kept].bincount().tolist() == [4, 1, 5]


def test_the_least_may_be_the_budget() -> None:
    assert n_kept(FoPru(keep_ratio=0.2, mass=0.5, least=0.2), PEAKED) == 2

"""Which settings are tested on fresh questions, and in which order."""

from itertools import combinations

import pytest

from tokenprune.evals.run.setups import Pruned, make_setups
from tokenprune.evals.tune.bounds import Loss
from tokenprune.evals.tune.confirm import MOST, expected_saving, sequence
from tokenprune.evals.tune.search import Tried

LOSS = Loss.of([1.0] * 8, [1.0] * 8, range(8))


def tried(cost: float, assurance: float, *, complete: bool = True) -> Tried:
    (setup,) = (one for one in make_setups(["grid"], [0.5], ["original"], []) if isinstance(one, Pruned))
    return Tried(setup, cost, LOSS, assurance, complete)


def costs(*some: Tried) -> list[float]:
    return [one.cost for one in sequence(some)]


def test_a_small_saving_is_not_worth_the_risk() -> None:
    assert costs(tried(0.64, 0.7), tried(0.78, 0.8), tried(0.8, 0.95)) == [0.8, 0.64]
    assert costs(tried(0.64, 0.7), tried(0.78, 0.95), tried(0.8, 0.95)) == [0.78, 0.64]


def test_a_safe_setting_comes_before_a_risky_one() -> None:
    assert costs(tried(0.3, 0.5), tried(0.5, 1.0)) == [0.5, 0.3]
    assert costs(tried(0.3, 0.99), tried(0.5, 0.98)) == [0.3]  # no saving, and less likely to pass


def test_what_is_unlikely_to_pass_is_tested_only_if_nothing_else_is_left() -> None:
    assert costs(tried(0.5, 0.9), tried(0.1, 0.05)) == [0.5]
    assert costs(tried(0.5, 0.06), tried(0.1, 0.05)) == [0.5]
    assert costs(tried(0.5, 0.0)) == [0.5]
    assert costs(tried(0.5, 1.0, complete=False), tried(1.1, 1.0)) == []


def test_few_are_tested() -> None:
    many = [tried(1 - number / 15, 1 - (number / 15) ** 3) for number in range(1, 15)]
    assert len(costs(*many)) == MOST
    assert expected_saving(sequence(many)) < max(expected_saving(some) for some in combinations(many, MOST + 1))


def test_the_expected_saving() -> None:
    assert expected_saving([tried(0.8, 0.5), tried(0.6, 0.5)]) == pytest.approx(0.5 * 0.2 + 0.25 * 0.2)
    assert expected_saving([]) == 0

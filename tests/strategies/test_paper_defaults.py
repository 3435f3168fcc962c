"""By default, a strategy does what its record says that its paper or its authors' code does. Numbers that are not
settings are tested with their strategy."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tokenprune import STRATEGIES, LateStep, Strategy
from tokenprune.strategy import StagedStrategy

#: Settings with the same default in every strategy that has them.
SHARED = {"budget_per", "average", "skip", "keep_ratio"}
EVERY = {**STRATEGIES, "latestep": LateStep}


@pytest.mark.parametrize("cls", EVERY.values(), ids=EVERY)
def test_default_budgets_are_the_papers(cls: type[Strategy]) -> None:
    strategy = cls()
    assert strategy.keep_ratio == pytest.approx(cls.record.published.get("keep_ratio", 0.25))
    if isinstance(strategy, StagedStrategy):
        found = tuple([stage.layer for stage in strategy.stages(n_layers)] for n_layers in (28, 32, 36))
        assert found == (cls.record.stages or ([], [], []))


@pytest.mark.parametrize("cls", EVERY.values(), ids=EVERY)
def test_defaults_are_the_papers(cls: type[Strategy]) -> None:
    """Those that are None leave a value to the model or turn off part of a strategy."""
    own = {one.name: one.default for one in fields(cls) if one.init and one.name not in SHARED}
    strategy = cls()
    if "reuse" in own:
        own["reuse"] = strategy.recompute_every
    published = {name: value for name, value in cls.record.published.items() if name != "keep_ratio"}
    assert {name: value for name, value in own.items() if value is not None} == published
    assert cls.record.source or not published

"""The keep ratio that a request asks an engine for."""

from __future__ import annotations

import pytest

from tokenprune import Compose, FoPru, Grid, PixelPrune, Strategy
from tokenprune.evals.run.engines.engine import request_ratio
from tokenprune.evals.run.setups import Pruned, Unpruned
from tokenprune.serving.vllm.settings import Settings


def pruned(strategy: Strategy, keep_ratio: float) -> Pruned:
    return Pruned(label="", keep_ratio=keep_ratio, strategy=strategy)


@pytest.mark.parametrize("own", [FoPru(keep_ratio=0.25), Compose(PixelPrune(), FoPru(keep_ratio=0.25))])
def test_none_but_its_own(own: Strategy) -> None:
    settings = Settings(own)
    assert request_ratio(pruned(own, 0.25), settings) is None
    assert request_ratio(pruned(own, 0.1), settings) == 0.1
    assert request_ratio(Unpruned(), settings) == 1


def test_a_ratio_of_1_that_prunes() -> None:
    """A ratio of 1 in a request would turn pruning off."""
    settings = Settings(PixelPrune())
    assert request_ratio(pruned(PixelPrune(), 1.0), settings) is None
    assert request_ratio(pruned(PixelPrune(), 0.5), settings) == 0.5
    assert request_ratio(Unpruned(), settings) == 1


def test_an_engine_that_prunes_nothing_need_not_be_asked() -> None:
    assert request_ratio(Unpruned(), Settings(Grid(keep_ratio=1.0))) is None

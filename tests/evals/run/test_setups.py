"""Setups: the unpruned model, strategies and baselines, by name or as objects."""

from dataclasses import asdict
from typing import Any

import pytest

import tokenprune
from tokenprune import Compose, FoPru, PixelPrune
from tokenprune.evals.run.setups import BASELINES, make_setups


def test_strategies_as_objects() -> None:
    fopru = tokenprune.FoPru(keep_ratio=0.9, mode="row")
    one, other = make_setups([fopru], [0.5, 0.25], ["compact"], [])
    assert (str(one.key), str(other.key)) == (
        "FoPru row, keep ratio 0.5, position IDs compact",
        "FoPru row, keep ratio 0.25, position IDs compact",
    )
    assert one.settings() == {**asdict(fopru), "keep_ratio": 0.5}


def test_labels_of_several_strategies() -> None:
    objects, text = Compose(PixelPrune(threshold=0.02), FoPru(mode="row")), "pixelprune:threshold=0.02+fopru:mode=row"
    for one in (objects, text):
        (setup,) = make_setups([one], [0.1], ["original"], baselines=())
        assert (setup.label, setup.keep_ratio) == ("PixelPrune 0.02 + FoPru row", 0.1)


def test_labels_have_settings_in_the_order_of_the_signature() -> None:
    """Not of the fields, where inherited ones come first: labels of earlier results stay valid."""
    (setup,) = make_setups([tokenprune.FoPru(layer=-2, mode="row")], [0.5], ["original"], [])
    assert setup.label == "FoPru row -2"


def test_an_earlier_step_has_a_budget_of_its_own() -> None:
    (setup,) = make_setups(["divprune:keep_ratio=0.6+fopru"], [0.1], ["original"], baselines=())
    assert setup.label == "DivPrune 0.6 + FoPru"


def test_baselines() -> None:
    def labels(strategies: list[str], baselines: Any) -> list[str]:
        return [c.label for c in make_setups(strategies, [0.5], ["original"], baselines)]

    assert labels(["grid"], BASELINES) == ["unpruned", "Grid", "Random", "downsample"]
    assert labels(["random", "grid"], BASELINES) == ["unpruned", "Random", "Grid", "downsample"]
    assert labels(["grid"], []) == ["Grid"]
    with pytest.raises(tokenprune.SettingError, match=r"position IDs 'orginal'\. Did you mean 'original'"):
        make_setups(["grid"], [0.5], ["orginal"])


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("fopro", "Did you mean 'fopru'"),
        ("downsampel", "Did you mean 'downsample'"),
        ("fopru:mod=row", "Did you mean 'mode'"),
        ("fopru:row", "name:key=value"),
        ("fopru:keep_ratio=0.1", "'fopru:keep_ratio=0.1': keep_ratio would have no effect, because --keep-ratio"),
        ("fopru:keep=64", "keep would have no effect"),
        ("pixelprune:keep_ratio=0.8+fopru:keep_ratio=0.1", "keep_ratio would have no effect"),
    ],
)
def test_wrong_strategies(strategy: str, message: str) -> None:
    with pytest.raises(tokenprune.SettingError, match=message):
        make_setups([strategy])


def test_every_registered_strategy_can_be_named() -> None:
    labels = [setup.label for setup in make_setups(list(tokenprune.STRATEGIES), [0.5])]
    assert len(labels) == 1 + 2 * len(tokenprune.STRATEGIES)

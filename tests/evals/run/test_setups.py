"""Setups: the unpruned model, strategies and baselines, by name or as objects."""

import json
from pathlib import Path
from typing import Any

import pytest

import tokenprune
from tokenprune import Compose, FoPru, PixelPrune
from tokenprune.evals.run.setups import BASELINES, Pruned, make_setups, pruned_setups
from tokenprune.strategies.registry import settings_of


@pytest.mark.parametrize(
    ("strategy", "label"),
    [
        (FoPru(keep_ratio=0.9, mode="row"), "FoPru row"),
        # In the order of the signature, not of fields, where inherited ones come first: labels of earlier results stay.
        (FoPru(layer=-2, mode="row"), "FoPru row -2"),
        (Compose(PixelPrune(threshold=0.02), FoPru(mode="row")), "PixelPrune 0.02 + FoPru row"),
        ("pixelprune:threshold=0.02+fopru:mode=row", "PixelPrune 0.02 + FoPru row"),
        ("divprune:keep_ratio=0.6+fopru", "DivPrune 0.6 + FoPru"),  # an earlier step has a budget of its own
    ],
)
def test_labels(strategy: Any, label: str) -> None:
    one, other = make_setups([strategy], [0.5, 0.1], ["compact"], [])
    assert str(one.key) == f"{label}, keep ratio 0.5, position IDs compact"
    assert str(other.key) == f"{label}, keep ratio 0.1, position IDs compact"
    if isinstance(strategy, FoPru):
        assert one.settings() == {**settings_of(strategy), "keep_ratio": 0.5}


def test_after_a_smaller_image_a_budget_is_a_share_of_its_tokens() -> None:
    (setup,) = make_setups(["downsample:keep_ratio=0.5+fopru"], [0.1], ["original"], baselines=())
    assert isinstance(setup, Pruned)
    assert setup.strategy == tokenprune.Compose(tokenprune.Downsample(keep_ratio=0.5), tokenprune.FoPru(keep_ratio=0.2))


def test_baselines_are_added_once() -> None:
    def labels(strategies: list[str], baselines: Any) -> list[str]:
        return [c.label for c in make_setups(strategies, [0.5], ["original"], baselines)]

    assert labels(["grid"], BASELINES) == ["unpruned", "Grid", "Random", "downsample"]
    assert labels(["random", "grid"], BASELINES) == ["unpruned", "Random", "Grid", "downsample"]
    assert labels(["grid"], []) == ["Grid"]
    with pytest.raises(tokenprune.SettingError, match=r"position IDs 'orginal'\. Did you mean 'original'"):
        make_setups(["grid"], [0.5], ["orginal"])


def test_position_ids_by_default_are_the_strategys() -> None:
    whole, composed = (
        make_setups([one], [0.25], None, ()) for one in (tokenprune.Downsample(), "downsample:keep_ratio=0.5+grid")
    )
    assert [setup.position_ids for setup in (*whole, *composed)] == ["compact", "original"]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("downsampel", "Did you mean 'downsample'"),
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
    assert len(labels) == 2 * len(tokenprune.STRATEGIES)  # of the baseline downsample, one; and the unpruned model


def test_setups_that_differ_have_different_labels(tmp_path: Path) -> None:
    """Labels are as short as possible."""
    several = make_setups(
        ["vflowopt:recycle=False", "vflowopt:progressive=False", "fopru:mode=row"], [0.5], ["compact"]
    )
    assert [one.label for one in several] == [
        "unpruned", "VFlowOpt recycle=False", "VFlowOpt progressive=False", "FoPru row"
    ]  # fmt: skip
    for one in (Compose(PixelPrune(), FoPru(mode="row")), "pixelprune+fopru:mode=row"):  # both are the same strategy
        joint = make_setups([one, "fopru"], [0.5], ["compact"])
        assert [one.label for one in joint[1:]] == ["PixelPrune + FoPru row", "FoPru"]
    files = []
    for folder, ratio in (("a", 0.5), ("b", 0.5), ("c", 0.25)):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "settings.json")
        files[-1].write_text(json.dumps({"strategy": "fopru", "settings": {"keep_ratio": ratio}}))
    named = make_setups([*map(str, files)], [0.5, 0.25], ["compact"], baselines=())
    assert [one.label for one in named] == ["FoPru a/settings", "FoPru b/settings", "FoPru settings"]


def test_the_ratio_of_a_settings_file_is_given_as_it_must_be_typed(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"strategy": "fopru", "settings": {"keep_ratio": 0.12345678}}))
    with pytest.raises(tokenprune.SettingError, match=r"Write --keep-ratio 0\.5 0\.12345678$"):
        make_setups([str(path)], [0.5])


@pytest.mark.parametrize("again", [{"strategies": ["grid", "grid"]}, {"keep_ratios": [0.5, 0.5]}])
def test_setups_have_no_twins(again: dict[str, Any]) -> None:
    with pytest.raises(tokenprune.SettingError, match=r"setup Grid, keep ratio 0\.5, .* appears twice"):
        make_setups(**{"strategies": ["grid"], "keep_ratios": [0.5], **again})


def test_what_prunes_nothing_is_not_left_out_silently() -> None:
    with pytest.raises(tokenprune.SettingError, match="downsample prunes nothing, so only `tokenprune eval` measures"):
        pruned_setups(["grid", "downsample"], [0.5], ["original"])

"""Strategies that prune before the vision tower or shrink the image: where they run in vLLM, and what their settings
mean there."""

from __future__ import annotations

import pytest

from tokenprune import Compose, DivPrune, Downsample, FlowCut, PixelPrune, Strategy
from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.settings import COUNT_STRETCH, Settings
from tokenprune.serving.vllm.startup.refusals import check_strategy, needs_image

SHRUNK = Compose(Downsample(keep_ratio=0.5), DivPrune(keep_ratio=0.25))
BOTH = Compose(PixelPrune(), DivPrune(keep_ratio=0.25))


@pytest.mark.parametrize("strategy", [PixelPrune(), BOTH, Downsample(), SHRUNK], ids=repr)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_where_they_run(architecture: str, strategy: Strategy) -> None:
    shrinks, one = "shrunk" in strategy.needs, ARCHITECTURES[architecture]
    if one.shrinks if shrinks else one.drops_patches:
        check_strategy(strategy, 6, architecture)
        return
    what = "have smaller versions of images encoded" if shrinks else "prune before the vision tower"
    with pytest.raises(UnsupportedError, match=rf"to {what}, which only these can: .*Qwen"):
        check_strategy(strategy, 6, architecture)


def test_what_else_a_composed_strategy_does_is_checked() -> None:
    with pytest.raises(UnsupportedError, match="needs to prune between the layers of the vision tower"):
        check_strategy(Compose(PixelPrune(), FlowCut()), 6, "TokenPruneQwen3VL")


def test_images_that_were_encoded_elsewhere() -> None:
    reason = needs_image(ARCHITECTURES["TokenPruneQwen3VL"], PixelPrune())
    assert reason == "PixelPrune reads what the vision tower does with an image"


def test_a_ratio_of_1_is_no_pruning_only_if_a_request_asks_for_it() -> None:
    settings = Settings(PixelPrune())
    assert settings.strategy_at(None) == PixelPrune()
    assert settings.strategy_at(1.0) is None
    assert settings.strategy_at(0.5) == PixelPrune(keep_ratio=0.5)
    assert Settings(DivPrune(keep_ratio=1.0)).strategy_at(None) is None


@pytest.mark.parametrize("strategy", [PixelPrune(), BOTH], ids=["alone", "composed"])
def test_an_image_may_lose_more_than_its_budget_says(strategy: Strategy) -> None:
    """The position IDs of the tokens that are left are those in the whole image."""
    assert Settings(strategy).n_positions(1000) == 1000 * COUNT_STRETCH


def test_a_smaller_image_may_have_half_its_budget() -> None:
    assert Settings(Downsample(keep_ratio=0.125)).n_positions(1000) == 16 * 1000

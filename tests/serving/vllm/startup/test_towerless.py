"""A model without a vision tower, which projects pixels: strategies may read its features and pixels."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma4UnifiedConfig

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.settings import Settings
from tokenprune.serving.vllm.startup.refusals import check_architecture, check_config

NAME = "TokenPruneGemma4Unified"
INSTEAD = r"Use a strategy that reads only the features of visual tokens, such as DivPrune\.$"


def check(strategy: str, **settings: Any) -> None:
    config = Gemma4UnifiedConfig(vision_config={}, architectures=[NAME])
    check_config(ARCHITECTURES[NAME], config, Settings.read({"strategy": strategy, "keep_ratio": 0.25, **settings}))


@pytest.mark.parametrize("strategy", ["divprune", "grid", "random"])
def test_what_reads_features_and_pixels(strategy: str) -> None:
    check(strategy)


@pytest.mark.parametrize("strategy", ["fopru", "mosaic", "prumerge", "visionzip", "vflowopt:progressive=False"])
def test_what_reads_the_attention_of_a_tower(strategy: str) -> None:
    said = rf"{NAME} inside vLLM does not have it; it offers: pixels\. {INSTEAD}"
    with pytest.raises(UnsupportedError, match=said):
        check(strategy)


@pytest.mark.parametrize("strategy", ["fastv", "evs", "flowcut", "pixelprune", "efficientvla:skip=1"])
def test_what_never_runs_is_told_what_does(strategy: str) -> None:
    """The error does not suggest FoPru or VisionZip, which read a tower."""
    with pytest.raises(UnsupportedError, match=INSTEAD):
        check(strategy)


def test_another_models_architecture() -> None:
    config = Gemma4UnifiedConfig(vision_config={}, architectures=[NAME])
    for one in (config, config.get_text_config()):
        one.vision_config = None
    with pytest.raises(UnsupportedError, match=rf"of type 'gemma4_unified'\. Write .*\[\"{NAME}\"\]"):
        check_architecture(ARCHITECTURES["TokenPruneGemma3"], config)


def test_what_reads_colors() -> None:
    with pytest.raises(UnsupportedError, match="alpha"):
        check("vflowopt:progressive=False", alpha=0.5)

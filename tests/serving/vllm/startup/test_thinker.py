"""Qwen-Omni, whose vision tower is described in the thinker's part of its config."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import Qwen2_5OmniConfig, Qwen3OmniMoeConfig

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.startup.refusals import check_model


def check(config: Any, architecture: str, **settings: Any) -> None:
    config.architectures = [architecture]
    config.tokenprune = {"strategy": "fopru", "keep_ratio": 0.25, **settings}
    multimodal = SimpleNamespace(enable_mm_embeds=False, mm_processor_kwargs=None)
    model = SimpleNamespace(hf_config=config, multimodal_config=multimodal, max_model_len=2048)
    check_model(ARCHITECTURES[architecture], model)


def test_layers_of_the_tower() -> None:
    check(Qwen3OmniMoeConfig(), "TokenPruneQwen3Omni", layer=26)
    with pytest.raises(UnsupportedError, match="layer=27 is not in the vision tower: write 0 to 26"):
        check(Qwen3OmniMoeConfig(), "TokenPruneQwen3Omni", layer=27)
    check(Qwen2_5OmniConfig(), "TokenPruneQwen2_5Omni", layer=31)
    with pytest.raises(UnsupportedError, match="layer=30 of this vision tower attends within small windows"):
        check(Qwen2_5OmniConfig(), "TokenPruneQwen2_5Omni", layer=30)


def test_before_the_tower() -> None:
    check(Qwen3OmniMoeConfig(), "TokenPruneQwen3Omni", strategy="pixelprune", keep_ratio=0.5)


def test_an_architecture_of_another_model() -> None:
    with pytest.raises(UnsupportedError, match=r'Write "architectures": \["TokenPruneQwen3Omni"\]'):
        check(Qwen3OmniMoeConfig(), "TokenPruneQwen3VL")

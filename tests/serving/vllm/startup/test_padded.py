"""Models that pad images or tiles to sizes that do not divide into the tower's patches: colours cannot be read."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma4Config, Gemma4VisionConfig, Lfm2VlConfig

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.settings import Settings
from tokenprune.serving.vllm.startup.refusals import check_config

FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}
COLORS = {"strategy": "vflowopt:progressive=False", "keep_ratio": 0.25, "alpha": 0.5}


@pytest.mark.parametrize(
    ("config", "name"),
    [(Gemma4Config(vision_config=Gemma4VisionConfig()), "TokenPruneGemma4"), (Lfm2VlConfig(), "TokenPruneLfm2VL")],
)
def test_colors(config: Any, name: str) -> None:
    config.architectures = [name]
    check_config(ARCHITECTURES[name], config, Settings.read(FOPRU))
    with pytest.raises(UnsupportedError, match="alpha"):
        check_config(ARCHITECTURES[name], config, Settings.read(COLORS))

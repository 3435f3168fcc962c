"""Models whose visual tokens have read all patches: strategies may read features, attention and colours, no grid."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Qwen2Config, SiglipVisionConfig

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.settings import Settings
from tokenprune.serving.vllm.startup.refusals import check_config

NAMES = {"TokenPruneMiniCPMV": "minicpmv", "TokenPruneMiniCPMO": "minicpmo"}


def check(strategy: str, name: str = "TokenPruneMiniCPMV", **settings: Any) -> None:
    kind: Any = type("Config", (Qwen2Config,), {"model_type": NAMES[name]})
    given = {"vision_config": SiglipVisionConfig(num_hidden_layers=4), **settings}
    config = kind(architectures=[name], **given)
    check_config(ARCHITECTURES[name], config, Settings.read({"strategy": strategy, "keep_ratio": 0.25}))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strategy", ["divprune", "fopru", "visionzip", "vflowopt:progressive=False,recycle=False"])
def test_what_reads_features_and_attention(name: str, strategy: str) -> None:
    check(strategy, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strategy", ["mosaic", "grid", "fopru:mode=row", "averagepooling"])
def test_what_reads_places(name: str, strategy: str) -> None:
    said = rf"cannot run inside vLLM with {name}: it needs the rows and columns of visual tokens"
    with pytest.raises(UnsupportedError, match=said):
        check(strategy, name)


def test_a_tower_without_its_last_layer() -> None:
    check("fopru:layer=2", drop_vision_last_layer=True)
    with pytest.raises(UnsupportedError, match="layer=3 of this vision tower is not built by vLLM, which stops after"):
        check("fopru:layer=3", drop_vision_last_layer=True)
    check("fopru:layer=3", drop_vision_last_layer=False)


def test_the_first_versions() -> None:
    with pytest.raises(UnsupportedError, match=r"no vision_config, as in MiniCPM-V 1 and 2\.0, which cannot be pruned"):
        check("divprune", vision_config=None)

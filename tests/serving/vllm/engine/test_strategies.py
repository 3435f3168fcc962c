"""Strategies of every kind run unchanged in vLLM, and give the same answers as in transformers."""

from pathlib import Path
from typing import Any

import pytest
from helpers.served.engine import check_served, needs_vllm
from helpers.served.families import FAMILIES
from helpers.served.family import Family
from helpers.served.reference import Request

pytestmark = [needs_vllm, pytest.mark.slow]
A, B = (1, 100, 100), (2, 150, 80)
NAMES = (
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_omni_moe",
    "qwen4_exp",
    "cosmos3_edge",
    "cohere_compass",
    "gemma3",
    "glm5_next",
    "minimax_m3",
    "deepseek_ocr",
    "dots_ocr",
    "opencua",
    "hyperclovax",
    "ling3_vl",
    "llava_onevision2",
    "ovis2_5",
    "ernie4_5_vl",
    "paddleocr_vl",
    "isaac",
    "keye",
    "keye_vl1_5",
    "hunyuan_vl",
    "lfm3_vl",
    "minicpm_ocr",
    "kimi_k25",
    "kimi_k3",
    "kimi_k31",
    "kimi_vl",
    "step3p7",
    "step_vl",
    "muse_glimmer",
    "nemotron_nano_vl",
    "nemotron_omni",
)
OF_PATCHES = [family for family in FAMILIES if family.name in NAMES]
TILED = [family for family in FAMILIES if family.name in ("llava-next", "llava-onevision")]
REQUESTS = (
    Request("w1 w2 <image> w3 w4", (A,)),
    Request("<image> w5 <image> w6 w7", (A, B)),
    Request("w1 w2 <image> w3 w4", (B,), keep_ratio=0.5),
    Request("w9 w10 w11"),
)
SETTINGS = {
    "merging": {"strategy": "visionzip", "keep_ratio": 0.25, "contextual": 0.4},
    "cls": {"strategy": "fopru", "keep": 10, "score": "cls", "layer": 0},
    "features": {"strategy": "divprune", "keep_ratio": 0.3},
    "the tower's features": {"strategy": "scope", "keep_ratio": 0.25},
    "merging, as in the README": {"strategy": "mosaic", "keep_ratio": 0.25},
    "pixels": {"strategy": "random", "keep_ratio": 0.25},
    "colors and recycling": {"strategy": "vflowopt:progressive=False", "keep_ratio": 0.25, "alpha": 0.5, "cell": 2.0},
    "nothing": {"strategy": "grid", "keep_ratio": 1.0},
    "compact": {"strategy": "fopru", "keep_ratio": 0.25, "position_ids": "compact"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_strategy(llava: Path, settings: dict[str, Any]) -> None:
    check_served(llava, "TokenPruneLlava", settings, REQUESTS)


@pytest.mark.parametrize("family", TILED, ids=[family.name for family in TILED])
def test_the_towers_features_of_tiles(family: Family, tmp_path: Path) -> None:
    family.save(tmp_path)
    settings = {"strategy": "prunesid", "keep_ratio": 0.4}
    requests = [Request(f"w1 w2 {family.image} w3", (image,)) for image in (A, B)]
    check_served(tmp_path, family.architecture, settings, requests, **family.options)


@pytest.mark.parametrize("family", OF_PATCHES, ids=[family.name for family in OF_PATCHES])
def test_colors_of_patches(family: Family, tmp_path: Path) -> None:
    """The tower gets pixels as patches, or before they are normalised: in Qwen-VL, Kimi and, from vLLM 0.34 on,
    Gemma 3 and Nemotron."""
    family.save(tmp_path)
    settings = {"strategy": "vflowopt:progressive=False", "keep_ratio": 0.25, "alpha": 1.0, "cell": 2.0}
    requests = [Request(f"w1 w2 {family.image} w3", (image,)) for image in (A, B)]
    check_served(tmp_path, family.architecture, settings, requests, **family.options)

"""Ovis 2.5 and 2.6, which vLLM runs with one class, and whose features it does not take."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any

from tokenprune.serving.vllm.architectures.architecture import Architecture


def described(config: Any) -> Any:
    """The config with the names that Qwen2.5-VL's has. If no layer is named, none has windows."""
    named, vision = copy(config), copy(config.vit_config)
    vision.spatial_merge_size = vision.hidden_stride
    whole = vision.fullatt_block_indexes
    vision.fullatt_block_indexes = None if whole is None else [*map(int, whole.split("|"))]
    named.vision_config = vision
    return named


ovis = partial(
    Architecture,
    home="ovis2_5:PrunedOvis2_5",
    text_part="llm_config",
    vision_parts=("vit_config",),
    tower="towers.qwen:HALVED_QWEN2_5_TOWER",
    described=described,
    takes_adapters=False,
    prunes_videos=True,
    needs_pixels=True,
    drops_patches=True,
)
RECORDS = (
    ovis(
        "TokenPruneOvis2_5", "ovis2_5", replaces="Ovis2_5",
        title="Ovis 2.5, Ovis 2.6 and its mixture of experts", published=("AIDC-AI/Ovis2.5-9B",),
        names=(r"\S+/Ovis2\.5",),
        converted_name="Ovis2_5ForConditionalGeneration", conversion="ovis-community/Ovis2.5-2B",
    ),
    ovis(
        "TokenPruneOvis2_6", "ovis2_6", replaces="Ovis2_6ForCausalLM", other_names=(r"\S+/Ovis2\.6-80B",),
        like="ovis2_5",
    ),
    ovis(
        "TokenPruneOvis2_6Moe", "ovis2_6_moe", replaces="Ovis2_6_MoeForCausalLM",
        published=("AIDC-AI/Ovis2.6-30B-A3B",), names=(r"\S+/Ovis2\.6-\d+B-A\d+B",),
        like="ovis2_5",
    ),
)  # fmt: skip

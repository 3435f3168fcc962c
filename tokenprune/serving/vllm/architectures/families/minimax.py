"""MiniMax M3."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from types import SimpleNamespace
from typing import Any

from tokenprune.serving.vllm.architectures.architecture import Architecture


def described(config: Any) -> Any:
    """The config in transformers' format: for published checkpoints, vLLM describes the tower by a dict."""
    published = config.vision_config
    if not isinstance(published, Mapping):
        return config
    sizes = {"spatial_merge_size": 2, "temporal_patch_size": 2, **published.get("img_token_compression_config", {})}
    named = copy(config)
    named.vision_config = SimpleNamespace(**{**published, **sizes})
    return named


RECORDS = (
    Architecture(
        "TokenPruneMiniMaxM3", "minimax_m3_vl", "minimax_m3", "MiniMaxM3SparseForConditionalGeneration",
        title="MiniMax M3", published=("MiniMaxAI/MiniMax-M3",),
        only_transformers_write="layer_types", tower="families.minimax_m3:TOWER", described=described,
        needs_pixels=True, drops_patches=True, joins_ranks=True, last_release="0.33",
        takes_adapters=False,
    ),
)  # fmt: skip

"""MiniMax M3: images of any size, before layers that attend to chosen blocks of the KV cache. Videos are not pruned:
the tower sees several frames at once, with text between them.

vLLM counts places in the KV cache apart from position IDs, which only rotate here.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

from vllm.models import minimax_m3
from vllm.models.minimax_m3.common import mm_preprocess
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedNormalised
from tokenprune.serving.vllm.towers.from_config import config_with_tower
from tokenprune.serving.vllm.worker.before_tower import PatchDropping


class MiniMaxM3Processor(GridProcessor, mm_preprocess.MiniMaxM3VLMultiModalProcessor):
    pruned = ("image",)


class WithTowerConfig(minimax_m3.MiniMaxM3SparseForConditionalGeneration):
    """vLLM's model, with the config of its vision tower as an object instead of a dict."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.config = config_with_tower(self.config)


@MULTIMODAL_REGISTRY.register_processor(
    MiniMaxM3Processor,
    info=mm_preprocess.MiniMaxM3VLProcessingInfo,
    dummy_inputs=mm_preprocess.MiniMaxM3VLDummyInputsBuilder,
)
class PrunedMiniMaxM3(PrunedNormalised, WithTowerConfig):
    """vLLM's MiniMax M3, pruned."""

    n_components = 1

    def make_patch_dropping(self) -> PatchDropping:
        tower = self.vision_tower.vision_model
        return PatchDropping(self.config, tower.encoder.layers, [self.vision_tower.patch_merge_mlp], tower.attn_backend)

    def attention_module(self) -> Any:
        return self.vision_tower.vision_model.encoder.layers[self.attention_layer].self_attn.attn

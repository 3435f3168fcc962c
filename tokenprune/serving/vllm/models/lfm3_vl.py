"""LFM3-VL: images and videos of any size, from a tower in which convolutions and attention alternate, before a language
model half of whose layers are short convolutions."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from vllm.model_executor.models import lfm3_vl
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import PrunedNormalised, Qwen3VLProcessor


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLProcessor, info=lfm3_vl.Lfm3VlProcessingInfo, dummy_inputs=lfm3_vl.Lfm3VlDummyInputsBuilder
)
class PrunedLfm3VL(PrunedNormalised, lfm3_vl.Lfm3VlForConditionalGeneration, SupportsMRoPE):
    """vLLM's LFM3-VL, pruned. Its position IDs count tokens, and its convolutions need whole grids of patches."""

    n_components = 1
    pruned = Qwen3VLProcessor.pruned

    def attention_module(self) -> Any:
        return self.vision_tower.layers[self.attention_layer].self_attn.attn

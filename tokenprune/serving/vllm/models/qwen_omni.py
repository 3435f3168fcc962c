"""The thinkers of Qwen2.5-Omni and Qwen3-Omni: images as in Qwen-VL; audio and videos are not pruned."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

from torch import Tensor
from vllm.model_executor.models import qwen2_5_omni_thinker, qwen3_omni_moe_thinker
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.serving.vllm.models.qwen_vl import GridProcessor, PrunedNormalised, PrunedQwenVL
from tokenprune.serving.vllm.worker.before_tower import PatchDropping


class Qwen2_5OmniProcessor(GridProcessor, qwen2_5_omni_thinker.Qwen2_5OmniThinkerMultiModalProcessor):
    pruned = ("image",)


class Qwen3OmniProcessor(GridProcessor, qwen3_omni_moe_thinker.Qwen3OmniMoeThinkerMultiModalProcessor):
    pruned = ("image",)


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2_5OmniProcessor,
    info=qwen2_5_omni_thinker.Qwen2_5OmniThinkerProcessingInfo,
    dummy_inputs=qwen2_5_omni_thinker.Qwen2_5OmniThinkerDummyInputsBuilder,
)
class PrunedQwen2_5Omni(PrunedQwenVL, qwen2_5_omni_thinker.Qwen2_5OmniThinkerForConditionalGeneration):
    """vLLM's Qwen2.5-Omni, pruned."""

    pruned = ("image",)

    def _process_image_input(self, image_input: Any) -> Any:
        """The features of each image. vLLM 0.32 does not split those of images encoded elsewhere."""
        rows = super()._process_image_input(image_input)
        if not isinstance(rows, Tensor):
            return rows
        merged = self.config.vision_config.spatial_merge_size**2
        return rows.split((image_input["image_grid_thw"].prod(-1) // merged).tolist())


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3OmniProcessor,
    info=qwen3_omni_moe_thinker.Qwen3OmniMoeThinkerProcessingInfo,
    dummy_inputs=qwen3_omni_moe_thinker.Qwen3OmniMoeThinkerDummyInputsBuilder,
)
class PrunedQwen3Omni(PrunedNormalised, qwen3_omni_moe_thinker.Qwen3OmniMoeThinkerForConditionalGeneration):
    """vLLM's Qwen3-Omni, pruned."""

    def make_patch_dropping(self) -> PatchDropping:
        tower = self.visual
        mergers = [tower.merger, *tower.merger_list]  # in the order in which they are called
        return PatchDropping(self.config, tower.blocks, reversed(mergers), tower.attn_backend)

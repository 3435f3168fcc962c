"""ERNIE 4.5 VL, in its authors' format: a vision tower like that of Qwen2-VL, and experts for images and for text."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from vllm.model_executor.models import ernie45_vl
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.towers.qwen import assembled
from tokenprune.serving.vllm.models.qwen_vl import PrunedNormalised
from tokenprune.serving.vllm.processor.processor import PruningProcessor

#: More than any position ID. vLLM keeps 32 bits of one.
TO_IMAGES = 2**30


class Ernie4_5VLProcessor(PruningProcessor, ernie45_vl.Ernie4_5VLMultiModalProcessor): ...


@MULTIMODAL_REGISTRY.register_processor(
    Ernie4_5VLProcessor,
    info=ernie45_vl.Ernie4_5_VLProcessingInfo,
    dummy_inputs=ernie45_vl.Ernie4_5_VLDummyInputsBuilder,
)
class PrunedErnie4_5VL(PrunedNormalised, ernie45_vl.Ernie4_5_VLMoeForConditionalGeneration):
    """vLLM's ERNIE 4.5 VL, pruned. Its videos are not."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.marks = self._visual_token_ids_tensor_cache.cpu()

    @property
    def visual(self) -> Any:
        """The vision tower, by the name that it has in Qwen-VL."""
        return self.vision_model

    def frame_pixels(self, pixels: Any, grids: Int[Tensor, "images 3"]) -> list[Float[Tensor, "channels height width"]]:
        vision = self.config.vision_config
        patches = pixels.reshape(-1, vision.in_channels, vision.patch_size, vision.patch_size)
        return assembled(patches, grids, vision.spatial_merge_size)

    def get_mrope_input_positions(self, input_tokens: Sequence[int], mm_features: Any) -> tuple[Tensor, int]:
        """The position IDs of a prompt. For tokens that go to the image experts (visual tokens and the marks around
        them), those in the last row are increased by `TO_IMAGES`; `step_ids` undoes it.

        vLLM instead looks at the tokens of a step. It misses the marks in a step without visual tokens, and mistakes
        marks in answers for those of images.
        """
        ids, delta = super().get_mrope_input_positions(input_tokens, mm_features)
        marked = torch.isin(torch.tensor(list(input_tokens)), self.marks)
        marked[max((item.mm_position.offset + item.mm_position.length + 1 for item in mm_features), default=0) :] = (
            False
        )
        return torch.cat([ids[:-1], (ids[-1] + marked * TO_IMAGES)[None]]), delta

    def step_ids(self, positions: Int[Tensor, "rows scheduled"]) -> Tensor:
        to_images = positions[-1] >= TO_IMAGES
        captured = positions.is_cuda and torch.cuda.is_current_stream_capturing()  # decoding, which has no such tokens
        self.visual_token_mask = None if captured or not bool(to_images.any()) else to_images[:, None]
        return super().step_ids(torch.cat([positions[:-1], (positions[-1] - to_images * TO_IMAGES)[None]]))

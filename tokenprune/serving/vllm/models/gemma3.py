"""Gemma 3: an image, and each crop of it, is one square of visual tokens, each the mean of a square of patches."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor
from vllm.model_executor.models import gemma3_mm
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.models.llava import PrunedLlavaTower
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.tiles import tiled_images
from tokenprune.tokens import Layout


class Gemma3Processor(PruningProcessor, gemma3_mm.Gemma3MultiModalProcessor):
    """Crops (pan and scan) are pruned one by one, as in transformers, where each is an image of its own."""

    square = True

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        n_crops = int(item["num_patches"].data)
        return (n_visual // n_crops,) * n_crops


@MULTIMODAL_REGISTRY.register_processor(
    Gemma3Processor, info=gemma3_mm.Gemma3ProcessingInfo, dummy_inputs=gemma3_mm.Gemma3DummyInputsBuilder
)
class PrunedGemma3(PrunedLlavaTower, gemma3_mm.Gemma3ForConditionalGeneration, SupportsMRoPE):
    """vLLM's Gemma 3, pruned."""

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return {"pixel_values": arguments["num_patches"].tolist()}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        crop = Layout.squares(self.side, self.side, self.side // isqrt(self.config.mm_tokens_per_image))
        pixels = arguments["pixel_values"]
        return tiled_images(self, [crop] * len(pixels), [1] * len(pixels), pixels)

    def normed(self, image: Real[Tensor, "channels height width"]) -> Float[Tensor, "channels height width"]:
        norm = getattr(self.vision_tower.vision_model, "input_norm", None)  # from vLLM 0.34 on
        return image if norm is None else norm(image[None], torch.float32)[0]

"""Mistral 3 and LightOn OCR: images of any size, whose visual tokens each combine a square of patches. In Mistral 3, a
marker follows each row of them."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Real
from torch import Tensor
from vllm.model_executor.models import lightonocr, mistral3
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import images_of_any_size
from tokenprune.tokens import Layout


class Mistral3Processor(PruningProcessor, mistral3.Mistral3MultiModalProcessor):
    has_markers = True


class LightOnOcrProcessor(PruningProcessor, lightonocr.LightOnOCRMultiModalProcessor): ...


class PrunedPixtralTower(PrunedModel):
    """Shared by both, and by `pixtral`: the tower gets the patches of all images in one sequence.

    pixels_name: the argument of `embed_multimodal` with the pixels of each image.
    """

    pixels_name: ClassVar[str] = "pixel_values"

    @property
    def tower(self) -> Any:
        """The vision tower."""
        return self.vision_tower

    @property
    def side(self) -> int:
        """How many patches wide and high the square is that becomes a visual token."""
        return self.config.spatial_merge_size

    def attention_module(self) -> Any:
        return self.tower.transformer.layers[self.attention_layer].attention.attn

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        pixels, patch = list(arguments[self.pixels_name]), self.config.vision_config.patch_size
        sides = [(image.shape[-2] // patch, image.shape[-1] // patch) for image in pixels]
        layouts = [Layout.squares(rows, columns, self.side) for rows, columns in sides]
        heads = None
        if self.capture is not None:
            n_patches = [rows * columns for rows, columns in sides]
            queries, keys = (part[0].split(n_patches, 1) for part in self.capture.heads())
            heads = zip(queries, keys, strict=True)
        return images_of_any_size(self, layouts, heads, lambda: map(self.normed, pixels))


@MULTIMODAL_REGISTRY.register_processor(
    Mistral3Processor, info=mistral3.Mistral3ProcessingInfo, dummy_inputs=mistral3.Mistral3DummyInputsBuilder
)
class PrunedMistral3(PrunedPixtralTower, mistral3.Mistral3ForConditionalGeneration, SupportsMRoPE):
    """vLLM's Mistral 3, pruned."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        scale_queries(vllm_config.model_config.hf_config.text_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)

    def normed(self, image: Real[Tensor, "channels height width"]) -> Float[Tensor, "channels height width"]:
        return self.vision_tower.input_norm(image.reshape(1, -1), torch.float32).view(image.shape)


@MULTIMODAL_REGISTRY.register_processor(
    LightOnOcrProcessor, info=lightonocr.LightOnOCRProcessingInfo, dummy_inputs=mistral3.Mistral3DummyInputsBuilder
)
class PrunedLightOnOcr(PrunedPixtralTower, lightonocr.LightOnOCRForConditionalGeneration, SupportsMRoPE):
    """vLLM's LightOn OCR, pruned. Its images arrive normalised."""


def scale_queries(text_config: Any) -> None:
    """Write Ministral 3's query scaling for distant positions where vLLM reads it: it only looks for the name in
    Mistral's own format, and would leave it out."""
    rope = getattr(text_config, "rope_parameters", None) or {}
    if "llama_4_scaling_beta" in rope and getattr(text_config, "llama_4_scaling", None) is None:
        text_config.llama_4_scaling = {
            "beta": rope["llama_4_scaling_beta"],
            "original_max_position_embeddings": rope["original_max_position_embeddings"],
        }

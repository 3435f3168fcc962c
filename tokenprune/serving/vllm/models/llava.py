"""LLaVA 1.0 and 1.5 with a CLIP or SigLIP tower: an image is one square of patches."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from vllm.model_executor.models import llava
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.layouts.shrunk import resized, shrunk_grid
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.elsewhere import misfit
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import tiled_images
from tokenprune.tokens import Layout


class LlavaProcessor(PruningProcessor, llava.LlavaMultiModalProcessor):
    square = True

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        if n_visual != (whole := side_of(self.info.get_hf_config()) ** 2):
            raise misfit(n_visual, str(whole))
        return (n_visual,)

    def shrink(self, modality: str, item: Any, budget: int) -> tuple[int, ...]:
        config = self.info.get_hf_config()
        side, patch, pixels = side_of(config), config.vision_config.patch_size, item["pixel_values"]
        _, rows, columns = shrunk_grid((1, side, side), budget)
        size = rows * patch, columns * patch
        if rows < side:
            item["pixel_values"] = replace(pixels, data=resized(pixels.data[None], *size)[0])
        return side, side, rows, columns, *size


def side_of(config: Any) -> int:
    """The side of a tile in patches."""
    return config.vision_config.image_size // config.vision_config.patch_size


class PrunedLlavaTower(PrunedModel):
    """Shared by models with a CLIP or SigLIP tower and LLaVA's names."""

    def attention_module(self) -> Any:
        layers = self.vision_tower.vision_model.encoder.layers
        return layers[self.attention_layer].self_attn.attn

    @property
    def side(self) -> int:
        """The side of a tile in patches."""
        return side_of(self.config)


def interpolate_positions(embeddings: Any) -> None:
    """Let the first module of a CLIP or SigLIP tower take images of other sizes than its own, as transformers' does:
    the embeddings of the patches' positions are interpolated."""
    embed, position = embeddings.forward, embeddings.position_embedding.forward
    side, grids = embeddings.image_size // embeddings.patch_size, []

    def forward(pixels: Tensor, *args: Any, **named: Any) -> Tensor:
        grids[:] = [tuple(n // embeddings.patch_size for n in pixels.shape[-2:])]
        return embed(pixels, *args, **named)

    def interpolated(ids: Tensor) -> Tensor:
        vectors = position(ids)
        if grids == [(side, side)]:
            return vectors
        prefix, patches = vectors.tensor_split([vectors.shape[1] - side**2], 1)
        square = patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        small = interpolate(square, grids[0], mode="bicubic", align_corners=False)
        return torch.cat([prefix, small.flatten(2).transpose(1, 2)], 1)

    embeddings.forward, embeddings.position_embedding.forward = forward, interpolated


@MULTIMODAL_REGISTRY.register_processor(
    LlavaProcessor, info=llava.LlavaProcessingInfo, dummy_inputs=llava.LlavaDummyInputsBuilder
)
class PrunedLlava(PrunedLlavaTower, llava.LlavaForConditionalGeneration, SupportsMRoPE):
    """vLLM's LLaVA, pruned."""

    one_size = True

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if self.settings.shrinks:
            interpolate_positions(self.vision_tower.vision_model.embeddings)

    def _parse_and_validate_image_input(self, **kwargs: Any) -> Any:
        pixels = kwargs.get("pixel_values")
        if pixels is None or not self.settings.shrinks:
            return super()._parse_and_validate_image_input(**kwargs)
        if not isinstance(pixels, Tensor):  # images of several sizes, of which this call gets those of one
            pixels = torch.stack(list(pixels))
        return llava.LlavaImagePixelInputs(type="pixel_values", pixel_values=pixels)

    @property
    def tokenwise_projector(self) -> Any:
        return self.multi_modal_projector

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        pixels, patch = arguments.get("pixel_values"), self.config.vision_config.patch_size
        height, width = (self.side,) * 2 if pixels is None else (n // patch for n in pixels[0].shape[-2:])
        layout = Layout.raster((1, height, width))
        return tiled_images(self, [layout] * len(features), [1] * len(features), pixels)

"""Muse Glimmer: images of any size and videos, whose patches attend within windows in most layers of the tower. vLLM
0.32 gets images and pairs of frames, 0.33 their patches in one sequence."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor
from vllm.model_executor.models import muse_glimmer
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.muse import image_pixels
from tokenprune.adapters.layouts.windows import window_order
from tokenprune.adapters.towers.qwen import by_frame, layout
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.models.qwen_vl import PIXELS
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import images_of_any_size


class MuseProcessor(PruningProcessor, muse_glimmer.MuseGlimmerMultiModalProcessor):
    """Pairs of frames are pruned one by one."""

    pruned = tuple(PIXELS)

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        if modality == "image":
            return (n_visual,)
        whole = "video_pixel_values" in item
        n_pairs = len(item["video_pixel_values"].data) if whole else int(item["video_grid_thw"].data[0])
        return (n_visual // n_pairs,) * n_pairs


@MULTIMODAL_REGISTRY.register_processor(
    MuseProcessor, info=muse_glimmer.MuseGlimmerProcessingInfo, dummy_inputs=muse_glimmer.MuseGlimmerDummyInputsBuilder
)
class PrunedMuseGlimmer(PrunedModel, muse_glimmer.MuseGlimmerForCausalLM, SupportsMRoPE):
    """vLLM's Muse Glimmer, pruned."""

    pruned = tuple(PIXELS)

    @property
    def decoder(self) -> Any:
        return self.model

    def attention_module(self) -> Any:
        blocks = self.vision_encoder.transformer
        return blocks[self.attention_layer].attn.attn

    def grids(self, arguments: dict[str, Any]) -> Int[Tensor, "images 3"]:
        modality, patch = modality_of(arguments), self.config.vision_config.patch_size
        if f"{modality}_grid_thw" in arguments:
            return arguments[f"{modality}_grid_thw"]
        shapes = [
            value.shape if value.ndim == 4 else (1, *value.shape) for value in arguments[f"{modality}_pixel_values"]
        ]
        return torch.tensor([(n_pairs, height // patch, width // patch) for n_pairs, _, height, width in shapes])

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return {PIXELS[modality_of(arguments)]: self.grids(arguments).prod(-1).tolist()}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        grids, vision = self.grids(arguments).cpu(), self.config.vision_config
        merge = getattr(vision, "merge_size", None) or vision.merge_kernel_size
        layouts = [layout(1, rows, columns, merge) for n_pairs, rows, columns in grids.tolist() for _ in range(n_pairs)]
        heads = None
        if self.capture is not None:
            queries, keys = (self.by_frame(part[0], grids) for part in self.capture.heads())
            heads = zip(queries, keys, strict=True)
        return images_of_any_size(self, layouts, heads, partial(self.frame_pixels, arguments, grids))

    def frame_pixels(
        self, arguments: dict[str, Any], grids: Int[Tensor, "images 3"]
    ) -> list[Float[Tensor, "channels height width"]]:
        """Every image, and the mean of every pair of frames."""
        modality = modality_of(arguments)
        if PIXELS[modality] in arguments:
            return image_pixels(arguments[PIXELS[modality]], grids, self.config.vision_config)
        pattern = "... (time channel) height width -> (...) channel height width"
        images = (reduce(value, pattern, "mean", channel=3) for value in arguments[f"{modality}_pixel_values"])
        return [frame for image in images for frame in image]

    def by_frame(
        self, states: Float[Tensor, "heads patches width"], grids: Int[Tensor, "images 3"]
    ) -> list[Float[Tensor, "heads frame_patches width"]]:
        """Queries or keys of every image or pair of frames in raster order; a tower with windows has them window by
        window."""
        vision = self.config.vision_config
        row = rearrange(states, "head patch width -> patch head width")
        if any(kind != "full_attention" for kind in vision.layer_types):
            row = row[window_order(grids, 1, vision.pos_emb_height).argsort().to(row.device)]
        return by_frame(row, grids, 1)


def modality_of(arguments: Mapping[str, Any]) -> str:
    """Whether a call of `embed_multimodal` has images or videos; it never has both."""
    return next(name for name in PIXELS if f"{name}_grid_thw" in arguments or f"{name}_pixel_values" in arguments)

"""Qwen2-VL to Qwen3-VL: images and videos of any size, position IDs with three components."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from vllm.model_executor.models import qwen2_5_vl, qwen2_vl, qwen3_vl, qwen3_vl_moe
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalKwargsItem

from tokenprune.adapters.layouts.shrunk import shrunk_row
from tokenprune.adapters.layouts.windows import window_order
from tokenprune.adapters.towers.qwen import frame_pixels, frames, layout
from tokenprune.encoded import EncodedImage, Modality
from tokenprune.serving.vllm.processor.item import PrunedItem
from tokenprune.serving.vllm.processor.patches import frames_of
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.towers.from_config import config_with_tower
from tokenprune.serving.vllm.worker.before_tower import PatchDropping
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import images_of_any_size
from tokenprune.tokens import PatchTokens

#: The modalities, and the argument that holds the patches of each.
PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


class GridProcessor(PruningProcessor):
    """For models whose items hold their grid of patches, (frames, rows, columns). Frames are pruned one by one."""

    pruned = tuple(PIXELS)

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        n_frames = int(item[f"{modality}_grid_thw"].data[0])
        return (n_visual // n_frames,) * n_frames

    def patches(self, modality: str, item: Any) -> Sequence[PatchTokens]:
        patches, grid = item[PIXELS[modality]].data, item[f"{modality}_grid_thw"].data
        return frames_of(self.info.get_hf_config(), patches, grid)

    def shrink(self, modality: str, item: Any, budget: int) -> tuple[int, ...]:
        names = PIXELS[modality], f"{modality}_grid_thw"
        pixels, grid = (item[name].data for name in names)
        if pixels.dtype == torch.uint8:  # resized without being rounded; a batch must have one type
            pixels = pixels.float()
        vision = config_with_tower(self.info.get_hf_config()).vision_config
        arguments = {names[0]: pixels, names[1]: grid[None]}
        n_frames, rows, columns = grid.tolist()
        layouts = [layout(n_frames, rows, columns, vision.spatial_merge_size)]
        small = shrunk_row(Modality(modality, "", names[0], 0), arguments, [budget], layouts, vision.patch_size, True)
        patches, (small_grid,) = (small.arguments[name] for name in names)
        item[names[0]] = replace(item[names[0]], data=patches)
        item[names[1]] = replace(item[names[1]], data=small_grid)
        (_, *whole), (_, *rest) = ((sizes // vision.spatial_merge_size).tolist() for sizes in (grid, small_grid))
        return (*whole, *rest, *small.sizes[0])


class Qwen2VLProcessor(GridProcessor, qwen2_vl.Qwen2VLMultiModalProcessor): ...


class Qwen2_5_VLProcessor(GridProcessor, qwen2_5_vl.Qwen2_5_VLMultiModalProcessor): ...


class Qwen3VLProcessor(GridProcessor, qwen3_vl.Qwen3VLMultiModalProcessor): ...


class PrunedQwenVL(PrunedModel):
    """Shared by models whose tower gets the patches of all images, or videos, in one sequence, each as one grid."""

    n_components = 3
    pruned = tuple(PIXELS)

    def make_patch_dropping(self) -> PatchDropping:
        mergers = [self.visual.merger, *getattr(self.visual, "deepstack_merger_list", ())]
        return PatchDropping(self.config, self.visual.blocks, mergers, self.visual.attn_backend)

    def grids(self, arguments: dict[str, Any]) -> Int[Tensor, "images 3"]:
        return arguments[f"{modality_of(arguments)}_grid_thw"]

    def attention_module(self) -> Any:
        return self.visual.blocks[self.attention_layer].attn.attn

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        vision, pixels = self.config.vision_config, arguments.get(PIXELS[modality_of(arguments)])
        grids = self.grids(arguments).cpu()
        layouts = [layout(1, h, w, vision.spatial_merge_size) for t, h, w in grids.tolist() for _ in range(t)]
        heads = None
        if pixels is not None and self.capture is not None:
            row = self.capture.row(grids.prod(-1).tolist(), features[0])
            queries, keys = (self.by_frame(self.whole(part), grids) for part in row)
            heads = zip(queries, keys, strict=True)
        seen = None if pixels is None else partial(self.frame_pixels, pixels, grids)
        return images_of_any_size(self, layouts, heads, seen)

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        modality = modality_of(arguments)
        patches = arguments[f"{modality}_grid_thw"].prod(-1).tolist()
        merged = self.config.vision_config.spatial_merge_size**2
        return {PIXELS[modality]: patches, f"{modality}_embeds": [n // merged for n in patches]}

    def as_passed(self, feature: Any, item: PrunedItem) -> Any:
        assert item.shrunk is not None
        name, merge = f"{feature.modality}_grid_thw", self.config.vision_config.spatial_merge_size
        grid = feature.data[name]
        whole = grid.data.new_tensor([len(item.parts), item.shrunk[0] * merge, item.shrunk[1] * merge])
        return replace(feature, data=MultiModalKwargsItem({**feature.data, name: replace(grid, data=whole)}))

    def offsets(self, image: EncodedImage) -> Int[Tensor, "visual components"]:
        return super().offsets(image) if self.n_components == 1 else image.layout.coordinates()[:, 1:]

    def frame_pixels(self, pixels: Any, grids: Int[Tensor, "images 3"]) -> list[Float[Tensor, "channels height width"]]:
        """Every frame, assembled from its patches; an image is one frame."""
        normed = self.visual.input_norm(pixels, torch.float32)  # the tower itself normalises them
        return frame_pixels({"hidden_states": normed, "grid_thw": grids}, self.config.vision_config)

    def by_frame(
        self, states: Float[Tensor, "heads patches width"], grids: Int[Tensor, "images 3"]
    ) -> list[Float[Tensor, "heads frame_patches width"]]:
        """Queries or keys of every frame in raster order."""
        vision = self.config.vision_config
        merge = vision.spatial_merge_size
        row = rearrange(states, "head patch width -> patch head width")
        if hasattr(vision, "fullatt_block_indexes"):  # the tower groups visual tokens by window
            order = window_order(grids, merge, vision.window_size // merge // vision.patch_size).to(row.device)
            row = row.unflatten(0, (-1, merge**2))[order.argsort()].flatten(0, 1)
        return [rearrange(frame, "patch head width -> head patch width") for frame in frames(row, grids, merge)]


class PrunedNormalised(PrunedQwenVL):
    """Models whose processor normalises pixels, and, unless they say otherwise, whose videos are not pruned."""

    pruned = ("image",)

    def frame_pixels(self, pixels: Any, grids: Int[Tensor, "images 3"]) -> list[Float[Tensor, "channels height width"]]:
        return frame_pixels({"hidden_states": pixels, "grid_thw": grids}, self.config.vision_config)


def modality_of(arguments: Mapping[str, Any]) -> str:
    """Whether a call of `embed_multimodal` has images or videos; it never has both."""
    return next(modality for modality in PIXELS if f"{modality}_grid_thw" in arguments)


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2VLProcessor, info=qwen2_vl.Qwen2VLProcessingInfo, dummy_inputs=qwen2_vl.Qwen2VLDummyInputsBuilder
)
class PrunedQwen2VL(PrunedQwenVL, qwen2_vl.Qwen2VLForConditionalGeneration):
    """vLLM's Qwen2-VL, pruned."""


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2_5_VLProcessor, info=qwen2_5_vl.Qwen2_5_VLProcessingInfo, dummy_inputs=qwen2_5_vl.Qwen2_5_VLDummyInputsBuilder
)
class PrunedQwen2_5_VL(PrunedQwenVL, qwen2_5_vl.Qwen2_5_VLForConditionalGeneration):
    """vLLM's Qwen2.5-VL, pruned."""


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLProcessor, info=qwen3_vl.Qwen3VLProcessingInfo, dummy_inputs=qwen3_vl.Qwen3VLDummyInputsBuilder
)
class PrunedQwen3VL(PrunedQwenVL, qwen3_vl.Qwen3VLForConditionalGeneration):
    """vLLM's Qwen3-VL, pruned. What its tower adds to decoder layers (DeepStack) is in columns after the features."""


@MULTIMODAL_REGISTRY.register_processor(
    Qwen3VLProcessor, info=qwen3_vl_moe.Qwen3VLMoeProcessingInfo, dummy_inputs=qwen3_vl.Qwen3VLDummyInputsBuilder
)
class PrunedQwen3VLMoe(PrunedQwenVL, qwen3_vl_moe.Qwen3VLMoeForConditionalGeneration):
    """vLLM's Qwen3-VL with experts, pruned."""

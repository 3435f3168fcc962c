"""MiniCPM-V 4.6 and 4.7: an overview and slices of any size, which are pruned one by one, before the language model of
Qwen3.5. Videos are not pruned."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from vllm.model_executor.models import minicpmv, minicpmv4_6, minicpmv4_7
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalBatchedField, MultiModalFieldElem

from tokenprune.adapters.families.minicpm import tile_image, tile_layout
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.placeholder import PrunedPlaceholder
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.towers.from_config import tower_of_config
from tokenprune.serving.vllm.worker.capture import FusedCapture
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import image_statistics
from tokenprune.tokens import Layout, VisionAttention

#: How many patches are merged into one visual token, and into one within the tower, which a request may skip.
MERGED, WITHIN = 16, 4
#: The field of an image's item that holds the number of slices side by side.
COLUMNS = "tokenprune_columns"
#: The number of tokens between two slices of a row.
MARKERS = 2


class SlicesProcessor(PruningProcessor):
    """The overview and slices are pruned one by one, as in transformers, where each is an image of its own."""

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        merged = n_merged(item["use_vit_merger"].data)
        return [n // merged for n in item["tgt_sizes"].data.prod(-1).tolist()]

    def _recompute_cached_prompt_update(self, cached_update: Any, new_item_idx: int) -> Any:
        # vLLM rewrites the number of the image, and with it the whole placeholder.
        old, update = cached_update.content, super()._recompute_cached_prompt_update(cached_update, new_item_idx)
        if not isinstance(old, PrunedPlaceholder):
            return update
        content = replace(old, full=update.content.full, is_embed=update.content.is_embed)
        return replace(update, content=content)


class MiniCPMProcessor(SlicesProcessor, minicpmv4_6.MiniCPMV4_6MultiModalProcessor): ...


class ColumnsProcessor(minicpmv4_7.MiniCPMV4_7MultiModalProcessor):
    """vLLM's processor, whose images also say how many slices are side by side."""

    def _get_mm_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Any:
        updates = super()._get_mm_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        for (update, *_), item in zip(updates.get("image", ()), out_mm_kwargs.get("image", ()), strict=True):
            visual = update.content.is_embed([*update.content.full])
            field = MultiModalBatchedField(keep_on_cpu=True)
            item[COLUMNS] = MultiModalFieldElem(data=torch.tensor(n_columns(visual)), field=field)
        return updates


class MiniCPMV4_7Processor(SlicesProcessor, ColumnsProcessor): ...


def n_columns(visual: Bool[Tensor, " placeholder"]) -> int:
    """How many slices of an image are side by side, given where its visual tokens are. Between the last slice of a row
    and the next slice is a newline, besides the two markers between any two slices."""
    places = visual.nonzero()[:, 0].tolist()
    _, *between = [after - before - 1 for before, after in pairwise(places) if after - before > 1] or [0]
    return next((column for column, n in enumerate(between, 1) if n > MARKERS), len(between) + 1)


class PrunedSlices(PrunedModel):
    """What both versions share."""

    def make_capture(self) -> FusedCapture:
        layer = self.vpm.encoder.layers[self.attention_layer]
        return FusedCapture(layer, layer.self_attn.scale)  # with padding, the attention has no module of its own

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        grids = [size.tolist() for size in arguments["tgt_sizes"]]
        merged = [n_merged(mode) for mode in arguments["use_vit_merger"]]
        heads = iter(self.capture.by_tile()) if self.capture is not None else repeat(None)
        encoded: dict[int, list[EncodedImage]] = {}
        # The tower gets images with the same merging together, in order of first occurrence.
        for image in sorted(range(len(grids)), key=lambda image: merged.index(merged[image])):
            tiles = zip(arguments["pixel_values"][image], grids[image], strict=True)
            encoded[image] = [self._encoded(pixels, grid, merged[image], next(heads)) for pixels, grid in tiles]
        return [tile for image in range(len(grids)) for tile in encoded[image]]

    def _encoded(
        self, pixels: Tensor, grid: Sequence[int], merged: int, heads: tuple[Tensor, Tensor] | None
    ) -> EncodedImage:
        """A tile of rows x columns patches, given its pixels, queries and keys, with padding at the end."""
        (rows, columns), needs, tower = grid, self.settings.strategy.needs, tower_of_config(self.config)
        layout = tile_layout(rows, columns, rows * columns // merged)
        statistics: dict[str, Any] = {}
        if heads is not None and self.capture is not None:
            within = merged == MERGED and self.attention_layer > self.config.insert_layer_id
            n_states = rows * columns // (WITHIN if within else 1)
            queries, keys = (part[None, :, :n_states] for part in heads)
            statistics["vision_attention"] = VisionAttention(queries, keys, self.capture.scale, tower.n_prefix, layout)
        if needs & {"pixels", "colors"}:
            statistics.update(image_statistics(needs, tower, tile_image(pixels, rows, columns)[None]))
        return EncodedImage(layout, statistics)


@MULTIMODAL_REGISTRY.register_processor(
    MiniCPMProcessor, info=minicpmv4_6.MiniCPMV4_6ProcessingInfo, dummy_inputs=minicpmv.MiniCPMVDummyInputsBuilder
)
class PrunedMiniCPMV4_6(PrunedSlices, minicpmv4_6.MiniCPMV4_6ForConditionalGeneration):
    """vLLM's MiniCPM-V 4.6, pruned. Its position IDs count tokens."""


@dataclass(eq=False)
class OnCanvas(EncodedImage):
    """An overview or a slice, with each visual token's position ID relative to that of its first one."""

    offsets: Int[Tensor, "visual 3"] | None = None


@MULTIMODAL_REGISTRY.register_processor(
    MiniCPMV4_7Processor, info=minicpmv4_7.MiniCPMV4_7ProcessingInfo, dummy_inputs=minicpmv.MiniCPMVDummyInputsBuilder
)
class PrunedMiniCPMV4_7(PrunedSlices, minicpmv4_7.MiniCPMV4_7ForConditionalGeneration):
    """vLLM's MiniCPM-V 4.7, pruned. The position IDs of an overview and its slices are places on one canvas."""

    n_components = 3

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        tiles = super().encoded_images(arguments, features)
        images: list[EncodedImage] = []
        for sizes, columns in zip(arguments["tgt_sizes"], arguments[COLUMNS], strict=True):
            image = tiles[len(images) : len(images) + len(sizes)]
            offsets = canvas_offsets([tile.layout for tile in image], int(columns))
            images += [
                OnCanvas(tile.layout, tile.statistics, offsets=each) for tile, each in zip(image, offsets, strict=True)
            ]
        return images

    def offsets(self, image: EncodedImage) -> Int[Tensor, "visual components"]:
        if not self._uses_canvas_mrope:
            return super().offsets(image).expand(-1, self.n_components)
        assert isinstance(image, OnCanvas)
        assert image.offsets is not None
        return image.offsets


def canvas_offsets(tiles: Sequence[Layout], columns: int) -> list[Int[Tensor, "visual 3"]]:
    """The `offsets` of an image's overview, stretched over the canvas of its slices if it has any, and of the slices,
    of which `columns` are side by side."""
    overview, *slices = [tile.coordinates()[:, 1:] for tile in tiles]
    (_, *size), *of_slices = [tile.grids[0] for tile in tiles]
    if of_slices:
        _, height, width = of_slices[0]
        canvas = height * len(slices) // columns, width * columns
        rows, places = (torch.linspace(0, end - 1, n).round().long() for end, n in zip(canvas, size, strict=True))
        overview = torch.cartesian_prod(torch.zeros(1, dtype=torch.long), rows, places)
    return [overview, *slices]


def n_merged(within: Tensor) -> int:
    """How many patches of an image become one visual token, given whether the tower merges some."""
    return MERGED if bool(within.all()) else MERGED // WITHIN

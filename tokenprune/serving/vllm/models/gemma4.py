"""Gemma 4: images of any shape, padded to one number of patches, which are averaged in squares, or projected without a
vision tower. Videos and audio are not pruned."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor
from vllm.model_executor.models import gemma4_mm, gemma4_unified
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.gemma4 import sizes_of, tiles_of
from tokenprune.adapters.layouts.padded import padded_squares
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.towers.from_config import tower_of_config
from tokenprune.serving.vllm.worker.capture import TileCapture
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import image_statistics
from tokenprune.tokens import VisionAttention


class Gemma4Processor(PruningProcessor, gemma4_mm.Gemma4MultiModalProcessor): ...


@MULTIMODAL_REGISTRY.register_processor(
    Gemma4Processor, info=gemma4_mm.Gemma4ProcessingInfo, dummy_inputs=gemma4_mm.Gemma4DummyInputsBuilder
)
class PrunedGemma4(PrunedModel, gemma4_mm.Gemma4ForConditionalGeneration, SupportsMRoPE):
    """vLLM's Gemma 4, pruned. Its per-layer embeddings are those of the remaining tokens."""

    def make_capture(self) -> TileCapture:
        tower = tower_of_config(self.config)
        return TileCapture(tower, self.vision_tower, tower.layers(self.vision_tower)[self.attention_layer])

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        needs, side = self.settings.strategy.needs, self.config.vision_config.pooling_kernel_size
        rows, places = list(arguments["pixel_values"]), list(arguments["pixel_position_ids"])
        sizes = [sizes_of(place[None])[0] for place in places]
        layouts = [padded_squares(*size, side) for size in sizes]
        statistics: list[dict[str, Any]] = [{} for _ in layouts]
        if isinstance(self.capture, TileCapture):
            # The tower gets images of one padded length together, in the order in which the lengths first occur.
            lengths = [len(row) for row in rows]
            order = sorted(range(len(rows)), key=lambda image: lengths.index(lengths[image]))
            for image, (queries, keys, real) in zip(order, self.capture.tiles, strict=True):
                statistics[image]["vision_attention"] = VisionAttention(
                    queries[None], keys[None], self.capture.scale, 0, layouts[image], real[None]
                )
        if needs & {"pixels", "colors"}:
            for found, row, place in zip(statistics, rows, places, strict=True):
                (tile,) = tiles_of(self.rescaled(row)[None], place[None])
                found.update(image_statistics(needs, tower_of_config(self.config), tile[None]))
        return [EncodedImage(layout, image) for layout, image in zip(layouts, statistics, strict=True)]

    def rescaled(self, patches: Real[Tensor, "patches values"]) -> Float[Tensor, "patches values"]:
        """The colours of patches, the last axis, as the tower's first layer sees them."""
        norm = getattr(self, "vision_input_norm", None)  # from vLLM 0.34 on
        return patches if norm is None else norm(patches.reshape(-1, 3), torch.float32).view(patches.shape)


@MULTIMODAL_REGISTRY.register_processor(
    Gemma4Processor, info=gemma4_unified.Gemma4UnifiedProcessingInfo, dummy_inputs=gemma4_mm.Gemma4DummyInputsBuilder
)
class PrunedGemma4Unified(PrunedModel, gemma4_unified.Gemma4UnifiedForConditionalGeneration, SupportsMRoPE):
    """vLLM's Gemma 4 without a vision tower, pruned."""

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        images = []
        for pixels, places in zip(arguments["pixel_values"], arguments["pixel_position_ids"], strict=True):
            layout = padded_squares(*sizes_of(places[None])[0], side=1)
            reads = "pixels" in self.settings.strategy.needs
            seen = {"pixels": tuple(tiles_of(pixels[None], places[None]))} if reads else {}
            images.append(EncodedImage(layout, seen))
        return images

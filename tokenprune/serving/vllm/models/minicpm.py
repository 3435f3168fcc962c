"""MiniCPM-V 4.6: an overview and slices of any size, which are pruned one by one, before the language model of Qwen3.5.
Videos are not pruned."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

from torch import Tensor
from vllm.model_executor.models import minicpmv, minicpmv4_6
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.minicpm import tile_image, tile_layout
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processing import PrunedPlaceholder, PruningProcessor
from tokenprune.serving.vllm.towers import encoder_layer, tower_of_config
from tokenprune.serving.vllm.worker.capture import FusedCapture
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import image_statistics
from tokenprune.tokens import VisionAttention

#: How many patches become one visual token, and how many of them within the tower; a request may skip these.
MERGED, WITHIN = 16, 4


class MiniCPMProcessor(PruningProcessor, minicpmv4_6.MiniCPMV4_6MultiModalProcessor):
    """The overview and slices are pruned one by one, as in transformers, where each is an image of its own."""

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        merged = n_merged(item["use_vit_merger"].data)
        return [n // merged for n in item["tgt_sizes"].data.prod(-1).tolist()]

    def _recompute_cached_prompt_update(self, cached_update: Any, new_item_idx: int) -> Any:
        # vLLM writes the number of the image anew, and with it the whole placeholder.
        old, update = cached_update.content, super()._recompute_cached_prompt_update(cached_update, new_item_idx)
        if not isinstance(old, PrunedPlaceholder):
            return update
        content = PrunedPlaceholder(update.content.full, update.content.is_embed, old.n_visual, old.n_kept)
        return replace(update, content=content)


@MULTIMODAL_REGISTRY.register_processor(
    MiniCPMProcessor, info=minicpmv4_6.MiniCPMV4_6ProcessingInfo, dummy_inputs=minicpmv.MiniCPMVDummyInputsBuilder
)
class PrunedMiniCPMV4_6(PrunedModel, minicpmv4_6.MiniCPMV4_6ForConditionalGeneration):
    """vLLM's MiniCPM-V 4.6, pruned. Its position IDs count tokens."""

    @property
    def layer(self) -> int:
        """The index of the encoder layer that the strategy reads."""
        return encoder_layer(self.config, self.settings.strategy.attention_layer)

    def make_capture(self) -> FusedCapture:
        layer = self.vpm.encoder.layers[self.layer]
        return FusedCapture(layer, layer.self_attn.scale)  # with padding, the attention has no module of its own

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        grids = [one.tolist() for one in arguments["tgt_sizes"]]
        merged = [n_merged(one) for one in arguments["use_vit_merger"]]
        heads = iter(self.capture.by_tile()) if self.capture is not None else repeat(None)
        encoded: dict[int, list[EncodedImage]] = {}
        # The tower gets images together that are merged as often, in the order in which that first occurs.
        for image in sorted(range(len(grids)), key=lambda image: merged.index(merged[image])):
            tiles = zip(arguments["pixel_values"][image], grids[image], strict=True)
            encoded[image] = [self._encoded(pixels, grid, merged[image], next(heads)) for pixels, grid in tiles]
        return [tile for image in range(len(grids)) for tile in encoded[image]]

    def _encoded(
        self, pixels: Tensor, grid: Sequence[int], merged: int, heads: tuple[Tensor, Tensor] | None
    ) -> EncodedImage:
        """A tile of rows x columns patches, given its pixels, and queries and keys, with padding after them."""
        (rows, columns), needs, tower = grid, self.settings.strategy.needs, tower_of_config(self.config)
        layout = tile_layout(rows, columns, rows * columns // merged)
        statistics: dict[str, Any] = {}
        if heads is not None and self.capture is not None:
            within = merged == MERGED and self.layer > self.config.insert_layer_id
            n_states = rows * columns // (WITHIN if within else 1)
            queries, keys = (part[None, :, :n_states] for part in heads)
            statistics["vision_attention"] = VisionAttention(queries, keys, self.capture.scale, tower.n_prefix, layout)
        if needs & {"pixels", "colors"}:
            statistics.update(image_statistics(needs, tower, tile_image(pixels, rows, columns)[None]))
        return EncodedImage(layout, statistics)


def n_merged(within: Tensor) -> int:
    """How many patches of an image become one visual token, given whether the tower merges some."""
    return MERGED if bool(within.all()) else MERGED // WITHIN

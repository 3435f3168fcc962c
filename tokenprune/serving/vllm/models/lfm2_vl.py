"""LFM2-VL: tiles of any shape, several of which are followed by an overview, before a language model most of whose
layers are short convolutions."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from vllm.model_executor.models import lfm2_vl
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.lfm2_vl import tile_image
from tokenprune.adapters.layouts.padded import padded_squares
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processing import PruningProcessor
from tokenprune.serving.vllm.towers import encoder_layer, tower_of_config
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import image_statistics
from tokenprune.tokens import VisionAttention


class Lfm2VLProcessor(PruningProcessor, lfm2_vl.Lfm2VLMultiModalProcessor):
    """Tiles and the overview are pruned one by one, as in transformers, where each is an image of its own."""

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        merged = self.info.get_hf_config().downsample_factor ** 2
        return [n // merged for n in item["spatial_shapes"].data.prod(-1).tolist()]


@MULTIMODAL_REGISTRY.register_processor(
    Lfm2VLProcessor, info=lfm2_vl.Lfm2VLProcessingInfo, dummy_inputs=lfm2_vl.Lfm2VLDummyInputsBuilder
)
class PrunedLfm2VL(PrunedModel, lfm2_vl.Lfm2VLForConditionalGeneration, SupportsMRoPE):
    """vLLM's LFM2-VL, pruned. Its tower gets the patches of all tiles in one sequence, without padding."""

    def attention_module(self) -> Any:
        layers = self.vision_tower.vision_model.encoder.layers
        return layers[encoder_layer(self.config, self.settings.strategy.attention_layer)].self_attn.attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return dict.fromkeys(("pixel_values", "spatial_shapes"), arguments["num_patches"].tolist())

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        needs, tower = self.settings.strategy.needs, tower_of_config(self.config)
        shapes, side = arguments["spatial_shapes"].tolist(), self.config.downsample_factor
        layouts = [padded_squares(rows, columns, side) for rows, columns in shapes]
        statistics: list[dict[str, Any]] = [{} for _ in layouts]
        if self.capture is not None:
            n_patches = [rows * columns for rows, columns in shapes]
            heads = (part.split(n_patches, 2) for part in self.capture.heads())
            for found, layout, queries, keys in zip(statistics, layouts, *heads, strict=True):
                found["vision_attention"] = VisionAttention(queries, keys, self.capture.scale, tower.n_prefix, layout)
        if needs & {"pixels", "colors"}:
            patch = self.config.vision_config.patch_size
            for found, patches, (rows, columns) in zip(statistics, arguments["pixel_values"], shapes, strict=True):
                tile = tile_image(patches, rows, columns, patch)
                found.update(image_statistics(needs, tower, tile[None]))
        return [EncodedImage(layout, found) for layout, found in zip(layouts, statistics, strict=True)]

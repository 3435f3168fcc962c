"""LFM2-VL: tiles of any shape, several of which are followed by an overview, before a language model most of whose
layers are short convolutions."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor
from vllm.model_executor.models import lfm2_vl
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.lfm2_vl import tile_image
from tokenprune.adapters.layouts.padded import padded_squares
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import images_of_any_size


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
        return layers[self.attention_layer].self_attn.attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return dict.fromkeys(("pixel_values", "spatial_shapes"), arguments["num_patches"].tolist())

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        shapes, side = arguments["spatial_shapes"].tolist(), self.config.downsample_factor
        layouts = [padded_squares(rows, columns, side) for rows, columns in shapes]
        heads = None
        if self.capture is not None:
            n_patches = [rows * columns for rows, columns in shapes]
            queries, keys = (part[0].split(n_patches, 1) for part in self.capture.heads())
            heads = zip(queries, keys, strict=True)
        return images_of_any_size(self, layouts, heads, partial(self.tile_pixels, arguments["pixel_values"], shapes))

    def tile_pixels(
        self, tiles: Iterable[Tensor], shapes: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "channels height width"]]:
        """Every tile, assembled from its patches, (patches, values), which padding may follow."""
        patch = self.config.vision_config.patch_size
        return [tile_image(tile, rows, columns, patch) for tile, (rows, columns) in zip(tiles, shapes, strict=True)]

"""Molmo 2: a small version of an image, then overlapping crops, whose patches are pooled into one canvas, with marks
around both and after every row. Videos are not pruned."""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor
from vllm.model_executor.models import molmo2
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.families.molmo2 import pooled_layout
from tokenprune.encoded import EncodedImage
from tokenprune.errors import SettingError
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.worker.model import PrunedModel
from tokenprune.serving.vllm.worker.tiles import tiled_images
from tokenprune.tokens import Layout
from tokenprune.tokens.layout import Grid3


class Molmo2Processor(PruningProcessor, molmo2.Molmo2MultiModalProcessor):
    """vLLM's encoder returns rows for the marks of an image, too."""

    has_markers = True

    def visual(self, ids: Sequence[int], embedded: Tensor) -> Tensor:
        return embedded & (torch.tensor(ids) == self.info.get_hf_config().image_patch_id)

    def parts(self, modality: str, item: Any, n_visual: int) -> Sequence[int]:
        rows, columns = sides_of(self.info.get_hf_config())
        n_patches = item["pixel_values"].data.shape[-2]
        if n_patches != rows * columns:  # the tower would fail, and end the engine
            raise SettingError(
                f"mm_processor_kwargs: a crop has {n_patches} patches, but this model's vision tower takes {rows} x "
                f"{columns}. Leave out 'size'."
            )
        return (n_visual,)


def sides_of(config: Any) -> tuple[int, int]:
    """The rows and columns of patches that a crop has."""
    height, width = config.vit_config.image_default_input_size
    return height // config.vit_config.image_patch_size, width // config.vit_config.image_patch_size


def grids_of(indices: Int[Tensor, "visual pooled"], sides: tuple[int, int]) -> tuple[Grid3, Grid3]:
    """The grids of an image's small version and of its canvas, given the patches (-1 for none) that each visual token
    pools, of the small version and then of every crop, each of `sides` rows and columns.

    A row of visual tokens ends where the next one's last patch is in another row of its crop.
    """
    last, n_patches = indices.amax(1), sides[0] * sides[1]
    n_small = int((last < n_patches).sum())
    small, canvas = (last % n_patches // sides[1]).split([n_small, len(last) - n_small])
    grids: list[Grid3] = []
    for rows in (small, canvas):
        others = (rows != rows[0]).nonzero()
        n_columns = int(others[0]) if len(others) else len(rows)
        grids.append((1, len(rows) // n_columns, n_columns))
    return grids[0], grids[1]


@MULTIMODAL_REGISTRY.register_processor(
    Molmo2Processor, info=molmo2.Molmo2ProcessingInfo, dummy_inputs=molmo2.Molmo2DummyInputsBuilder
)
class PrunedMolmo2(PrunedModel, molmo2.Molmo2ForConditionalGeneration, SupportsMRoPE):
    """vLLM's Molmo 2, pruned. All crops of a call are one batch for its tower."""

    @property
    def decoder(self) -> Any:
        return self.model

    def attention_module(self) -> Any:
        blocks = self.vision_backbone.image_vit.transformer.resblocks
        return blocks[self.attention_layer].attention.attn

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        counts = {
            "pixel_values": "image_num_crops",
            "image_token_pooling": "image_num_pooled_patches",
            "image_tokens": "num_image_tokens",
        }
        return {name: arguments[count].tolist() for name, count in counts.items()}

    def _process_image_input(self, image_input: Any) -> tuple[Tensor, ...]:
        """The features of the visual tokens of every image, without the embeddings of its marks, which are added
        later."""
        images = super()._process_image_input(image_input)
        tokens = image_input["image_tokens"].split(image_input["num_image_tokens"].tolist())
        return tuple(rows[ids == self.img_patch_id] for rows, ids in zip(images, tokens, strict=True))

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        sides, patch = sides_of(self.config), self.config.vit_config.image_patch_size
        pooled = arguments["image_token_pooling"].split(arguments["image_num_pooled_patches"].tolist())
        layouts: list[Layout] = [
            pooled_layout(grids_of(places, sides), places, sides[0] * sides[1]) for places in pooled
        ]
        pattern = "crop (row column) (y x channel) -> crop channel (row y) (column x)"
        pixels = rearrange(arguments["pixel_values"], pattern, row=sides[0], y=patch, x=patch)
        return tiled_images(self, layouts, arguments["image_num_crops"].tolist(), pixels)

"""HunyuanOCR, on vLLM's Transformers backend: images of any size, with newline tokens among their visual tokens, and
position IDs of four components.

The first component counts tokens. The others are the column, the row and the number of the image, except for the tokens
before and after an image's rows, in which all components are equal, as in text.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import pad
from vllm.model_executor.models.transformers import (
    MultiModalDummyInputsBuilder,
    MultiModalProcessingInfo,
    MultiModalProcessor,
    TransformersMultiModalForCausalLM,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from tokenprune.adapters.layouts.newlines import rows_with_delimiters
from tokenprune.adapters.towers.siglip_packed import packed_pixels
from tokenprune.encoded import EncodedImage
from tokenprune.serving.vllm.models.generic import PrunedTransformers
from tokenprune.serving.vllm.processor.processor import PruningProcessor
from tokenprune.serving.vllm.towers.from_config import n_heads
from tokenprune.serving.vllm.worker.capture import SeparateCapture
from tokenprune.serving.vllm.worker.positions import MOST, visual_places
from tokenprune.serving.vllm.worker.tiles import images_of_any_size
from tokenprune.tokens import Layout

#: What the offsets of a token before or after an image's rows have instead of a column, row and number. It makes a
#: position ID negative, which no other is.
LIKE_TEXT = -MOST // 2


class HunyuanVLProcessor(PruningProcessor, MultiModalProcessor): ...


class WholeImages(TransformersMultiModalForCausalLM):
    """vLLM's wrapper of the model, which returns the features of each image: vLLM 0.32 cuts those of all images by
    numbers of patches, of which an image has more than visual tokens."""

    def embed_multimodal(self, **kwargs: Any) -> Sequence[Tensor]:
        grids = kwargs["image_grid_thw"]
        features = self._get_features("image", kwargs["pixel_values"], image_grid_thw=grids)
        return features[0].split([layout.n_visual for layout in layouts_of(grids, self.config)])


def layouts_of(grids: Int[Tensor, "images 3"], config: Any) -> list[Layout]:
    """The layouts of images with these grids of patches."""
    merge = config.vision_config.spatial_merge_size
    return [rows_with_delimiters(Layout.squares(rows, columns, merge)) for _, rows, columns in grids.tolist()]


@MULTIMODAL_REGISTRY.register_processor(
    HunyuanVLProcessor, info=MultiModalProcessingInfo, dummy_inputs=MultiModalDummyInputsBuilder
)
class PrunedHunyuanVL(PrunedTransformers, WholeImages):
    """vLLM's HunyuanOCR, pruned."""

    n_components = 4

    def make_capture(self) -> SeparateCapture:
        layer = self.model.vision_tower.layers[self.attention_layer]
        return SeparateCapture(layer.self_attn, n_heads(self.config.vision_config))

    def rows_of_images(self, arguments: dict[str, Any]) -> Mapping[str, Sequence[int]]:
        return {"pixel_values": arguments["image_grid_thw"].prod(-1).tolist()}

    def encoded_images(self, arguments: dict[str, Any], features: Sequence[Tensor]) -> list[EncodedImage]:
        grids, heads = arguments["image_grid_thw"], None
        if self.capture is not None:
            sizes = grids.prod(-1).tolist()
            queries, keys = (part[0].split(sizes, 1) for part in self.capture.heads())
            heads = zip(queries, keys, strict=True)
        called = {"pixel_values": arguments["pixel_values"], "grid_thw": grids}
        layouts = layouts_of(grids, self.config)
        return images_of_any_size(self, layouts, heads, lambda: packed_pixels(called, self.config.vision_config))

    def offsets(self, image: EncodedImage) -> Int[Tensor, "visual components"]:
        """Counts from the image's first token, and places on its grid, which do not depend on the prompt."""
        _, (_, height, width), _ = image.layout.grids
        row, column = torch.cartesian_prod(torch.arange(height), torch.arange(width)).T
        places = torch.stack([column, row, torch.zeros_like(row)], 1)
        count = torch.arange(image.layout.n_visual)[:, None]
        return torch.cat([count, pad(places, (0, 0, 1, 1), value=LIKE_TEXT)], 1)

    def unpruned_ids(self, ids: list[int], features: Any) -> tuple[Tensor, int]:
        """With original position IDs, an image's first token, to whose IDs offsets are added, has the place of the one
        after it, which is the first on the grid."""
        whole, delta = super().unpruned_ids(ids, features)
        if self.settings.position_ids == "original":
            for feature in features:
                first = feature.mm_position.offset + int(visual_places(feature.mm_position)[0])
                whole[1:, first] = whole[1:, first + 1]
        return whole, delta

    def step_ids(self, positions: Int[Tensor, "rows scheduled"]) -> Int[Tensor, "components one scheduled"]:
        ids = super().step_ids(positions)
        ids[1:] = torch.where(ids[1:] < 0, ids[:1], ids[1:])
        return ids[:, None]

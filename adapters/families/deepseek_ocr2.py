"""DeepSeek-OCR 2: queries that have read the crops of an image, and the image, and a separator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.tokens.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("DeepseekOcr2ForConditionalGeneration")
class DeepseekOcr2Adapter(GenericAdapter):
    """For DeepseekOcr2ForConditionalGeneration.

    A visual token is a query that reads the patches in its own order, so it has no place on a grid, and no
    attention tells which patches it stands for. Tiles are known: the crops, and then the image with the separator.
    """

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_global = output.last_hidden_state.shape[1]
        local = output.get("local_last_hidden_state")
        n_local = 0 if local is None else local.shape[1]
        counts = [(len(image) - n_global - 1) // n_local if n_local else 0 for image in self.features(output)]
        return [tiles_and_separator(n_crops, n_local, n_global) for n_crops in counts]

    def image_pixels(self, modality: Modality, arguments: Mapping[str, Any], layouts: list[Layout]) -> list[Tensor]:
        return crops_and_whole(modality, arguments, layouts)


def tiles_and_separator(n_crops: int, n_local: int, n_global: int) -> Layout:
    """The layout of an image with so many crops of `n_local` visual tokens, and itself of `n_global`, in no order that
    a grid would show."""
    sizes = torch.tensor([n_local] * n_crops + [n_global + 1])
    return Layout(
        (*[(1, 1, n_local)] * n_crops, (1, 1, n_global), (1, 1, 1)),
        n_crops + 1,
        tiles=torch.arange(n_crops + 1).repeat_interleave(sizes),
        newlines=torch.arange(int(sizes.sum())) == int(sizes.sum()) - 1,
    )


def crops_and_whole(modality: Modality, arguments: Mapping[str, Any], layouts: list[Layout]) -> list[Tensor]:
    """The pixels of every tile, of models that are given the crops of all images apart: an image's crops and then the
    image. Crops are resized to the image's size."""
    wholes, crops = arguments[modality.pixels], arguments.get("pixel_values_local")
    counts = [layout.n_tiles - 1 for layout in layouts]
    if crops is None:
        return list(wholes)
    parts = interpolate(crops.float(), wholes.shape[-2:], mode="bilinear").to(wholes.dtype).split(counts)
    return [tile for whole, part in zip(wholes, parts, strict=True) for tile in (*part, whole)]

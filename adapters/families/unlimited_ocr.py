"""Unlimited-OCR: the crops of an image as one canvas, the image, and a separator, with newline tokens."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from tokenprune.adapters.families.deepseek_ocr2 import crops_and_whole
from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.registry import register_adapter
from tokenprune.sequence.packing import Packing
from tokenprune.tokens.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("UnlimitedOcrForConditionalGeneration")
class UnlimitedOcrAdapter(GenericAdapter):
    """For UnlimitedOcrForConditionalGeneration.

    Its cache keeps the prompt and a window of the answer. `generate` tells it beforehand how long the unpruned prompt
    is.
    """

    @property
    def offers(self) -> frozenset[str]:
        return super().offers | {"grid"}

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        side = isqrt(output.last_hidden_state.shape[1])
        local = output.get("local_last_hidden_state")
        part = 0 if local is None else isqrt(local.shape[1])
        counts = arguments.get("num_local_patches") or [0] * len(output.pooler_output)
        grids = arguments.get("patches_grid") or [(0, 0)] * len(counts)
        return [
            canvas_and_whole(rows if n_crops else 0, columns if n_crops else 0, part, side)
            for n_crops, (columns, rows) in zip(counts, grids, strict=True)
        ]

    def image_pixels(self, modality: Modality, arguments: Mapping[str, Any], layouts: list[Layout]) -> list[Tensor]:
        return crops_and_whole(modality, arguments, layouts)

    def prune_arguments(self, kwargs: dict[str, Any], packing: Packing, n_slots: int) -> None:
        super().prune_arguments(kwargs, packing, n_slots)
        for layer in getattr(kwargs.get("cache"), "layers", ()):
            told = getattr(layer, "prefill_length", None)
            if n_slots == 0 and told is not None:  # less than the prompt where a static cache has room for all
                layer.prefill_length = min(told, packing.columns.shape[1])


def canvas_and_whole(rows: int, columns: int, part: int, side: int) -> Layout:
    """The layout of rows x columns crops of part x part visual tokens, the image of side x side, and a separator. Every
    row of the canvas and of the image ends with a newline token, which belongs to the last crop of its row."""
    crop_row, crop_column = torch.arange(rows * part) // max(part, 1), torch.arange(columns * part) // max(part, 1)
    canvas = crop_row[:, None] * columns + torch.nn.functional.pad(crop_column, (0, 1), value=columns - 1)
    canvas = canvas if rows else torch.zeros(0, 1).long()
    ends = [torch.arange(width) == width - 1 for width in (canvas.shape[1], side + 1)]
    newlines = [ends[0].repeat(len(canvas)), ends[1].repeat(side), torch.tensor([True])]
    whole = torch.full((side * (side + 1) + 1,), rows * columns)
    grids = ((1, len(canvas), canvas.shape[1]),) if rows else ()
    return Layout(
        (*grids, (1, side, side + 1), (1, 1, 1)),
        rows * columns + 1,
        tiles=torch.cat([canvas.flatten(), whole]),
        newlines=torch.cat(newlines),
    )

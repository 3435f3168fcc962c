"""Unlimited-OCR: the crops of an image as one canvas, the whole image, and a separator, with newline tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isqrt
from operator import attrgetter
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.layouts.crops import corner, image_by_image
from tokenprune.adapters.layouts.newlines import append_maximum, append_row_maxima
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.tower import QueryKey, projected_points, scale_of_width
from tokenprune.encoded import Modality
from tokenprune.sequence.packing import Packing
from tokenprune.tokens.attention import split_heads
from tokenprune.tokens.layout import Layout


@register_adapter("UnlimitedOcrForConditionalGeneration")
class UnlimitedOcrAdapter(KnownTowerAdapter):
    """For UnlimitedOcrForConditionalGeneration.

    Attention is that of its second encoder, which has one patch per visual token. Its cache keeps the prompt and a
    window of the answer. `generate` sets the length of the unpruned prompt in it beforehand.
    """

    def describe_tower(self) -> Tower:
        return TOWER

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        side = isqrt(output.last_hidden_state.shape[1])
        local = output.get("local_last_hidden_state")
        part = 0 if local is None else isqrt(local.shape[1])
        counts, grids = arguments.get("num_local_patches"), arguments.get("patches_grid")
        if counts is None or grids is None:
            return [canvas_and_whole(0, 0, part, side)] * len(output.pooler_output)
        return [
            canvas_and_whole(int(rows) if n_crops else 0, int(columns) if n_crops else 0, part, side)
            for n_crops, (columns, rows) in zip(counts, grids, strict=True)
        ]

    def by_image(self, statistic: str, tiles: list[Any], layouts: Sequence[Layout]) -> list[Any]:
        return image_by_image(statistic, tiles, layouts, self.tower.n_prefix)

    def prune_arguments(self, kwargs: dict[str, Any], packing: Packing, n_slots: int) -> None:
        super().prune_arguments(kwargs, packing, n_slots)
        for layer in getattr(kwargs.get("cache"), "layers", ()):
            length = getattr(layer, "prefill_length", None)
            if n_slots == 0 and length is not None:  # less than the prompt if a static cache has room for everything
                layer.prefill_length = min(length, packing.columns.shape[1])


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
        partial(to_tokens, rows=rows, part=part, side=side),
        torch.cat([canvas.flatten(), whole]),
        torch.cat(newlines),
    )


def to_tokens(values: Float[Tensor, "tiles patches"], rows: int, part: int, side: int) -> Float[Tensor, " visual"]:
    """Assemble the maps over all tiles. A newline token gets the highest value of its row, and the separator that of
    all."""
    rasters = [corner(values[-1:], side)[0]]
    if rows:
        rasters.insert(0, rearrange(corner(values[:-1], part), "(row column) y x -> (row y) (column x)", row=rows))
    return append_maximum(torch.cat(list(map(append_row_maxima, rasters))))


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Queries and keys of every tile, of the CLS token first."""
    n_heads = config.encoder_config.num_attention_heads
    return tuple(list(split_heads(call[part], n_heads)) for part in ("queries", "keys"))


def _scale(tower: Any) -> float:
    return scale_of_width(tower.vision_encoder)


TOWER = Tower(
    attrgetter("vision_encoder.encoder.layers"),
    projected_points,
    n_prefix=1,
    heads=heads,
    scale=_scale,
)

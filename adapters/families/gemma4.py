"""Gemma 4: images and videos of any shape, padded to the same number of patches, which are averaged in squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.adapters.generic import GenericAdapter, InterfaceAdapter
from tokenprune.adapters.layouts.frames import video_layout
from tokenprune.adapters.layouts.padded import padded_squares
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.attention import apply_rotary
from tokenprune.adapters.towers.tower import UNNORMALISED, QueryKey, encoder_layers, norms
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.tokens.layout import Layout


class Gemma4Layouts(InterfaceAdapter):
    """For both kinds of Gemma 4. In the large models the visual tokens of an image or a frame attend to each other in
    both directions."""

    #: The side of the square of patches, or of places of an image's pixels, averaged to one visual token.
    side = 1

    @property
    def noncausal(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.config.get_text_config().use_bidirectional_attention is not None

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        sizes = sizes_of(arguments[f"{modality.name}_position_ids"])
        frames = [padded_squares(rows, columns, self.side) for rows, columns in sizes]
        if modality.name == "image":
            return frames
        layouts, start = [], 0
        for n_frames in arguments["num_frames_per_video"].tolist():
            layouts.append(video_layout(frames[start : start + n_frames]))
            start += n_frames
        return layouts


@register_adapter("Gemma4UnifiedForConditionalGeneration")
class Gemma4UnifiedAdapter(Gemma4Layouts, GenericAdapter):  # pyright: ignore[reportIncompatibleVariableOverride]
    """For Gemma4UnifiedForConditionalGeneration, which has no vision encoder: it projects pixels."""

    @property
    def offers(self) -> frozenset[str]:
        return super().offers | self.frames_offered | {"grid"}

    def image_pixels(self, modality: Modality, arguments: Mapping[str, Any], layouts: list[Layout]) -> list[Tensor]:
        return tiles_of(arguments[modality.pixels], arguments[f"{modality.name}_position_ids"])


def per_layer_inputs(text: Any, ids: Int[Tensor, "batch length"]) -> dict[str, Tensor]:
    """The inputs of a small model's decoder layers, which it looks up only if it is given token IDs."""
    return {"per_layer_inputs": text.get_per_layer_inputs(ids)} if text.config.hidden_size_per_layer_input else {}


@register_adapter("Gemma4ForConditionalGeneration", text_inputs=per_layer_inputs)
class Gemma4Adapter(Gemma4Layouts, KnownTowerAdapter):  # pyright: ignore[reportIncompatibleVariableOverride]
    """For Gemma4ForConditionalGeneration. Per-layer embeddings are shortened with the sequence."""

    @property
    def side(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.vision_tower.config.pooling_kernel_size

    def describe_tower(self) -> Tower:
        return TOWER

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        return tiles_of(arguments["pixel_values"], arguments["pixel_position_ids"])


def tiles_of(
    pixels: Float[Tensor, "tiles patches values"], places: Int[Tensor, "tiles patches 2"]
) -> list[Float[Tensor, "channels height width"]]:
    """Assemble every tile from its patches."""
    pattern = "(row column) (y x channel) -> channel (row y) (column x)"
    return [
        rearrange(tile[: rows * columns], pattern, column=columns, y=isqrt(tile.shape[1] // 3), channel=3)
        for tile, (rows, columns) in zip(pixels, sizes_of(places), strict=True)
    ]


def sizes_of(places: Int[Tensor, "tiles patches 2"]) -> list[tuple[int, int]]:
    """Rows and columns of every tile, from the (column, row) of its patches, -1 where there is none."""
    last = places.amax(1)
    first = places.where(places >= 0, last[:, None]).amin(1)
    return [(row, column) for column, row in (last - first + 1).tolist()]


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Normed queries and keys; half of their width is rotated by columns, half by rows."""
    cos, sin = (part.flatten(0, 1).chunk(2, -1) for part in call["attention"]["position_embeddings"])
    places = call["tower"]["pixel_position_ids"]

    def rotated(states: Float[Tensor, "tiles patches heads width"]) -> list[Tensor]:
        halves = zip(states.flatten(0, 1).chunk(2, -1), cos, sin, strict=True)
        row = torch.cat([apply_rotary(half, *angles) for half, *angles in halves], -1)
        return list(rearrange(row, "(tile patch) head width -> tile head patch width", tile=len(states)))

    return rotated(call["queries"]), rotated(call["keys"]), list((places != -1).all(-1))


def _points(layer: Any) -> CapturePoints:
    return norms(layer.self_attn)


def _scale(tower: Any) -> float:
    return 1.0


TOWER = Tower(
    encoder_layers,
    _points,
    n_prefix=0,
    heads=heads,
    scale=_scale,
    normalisation=UNNORMALISED,
)

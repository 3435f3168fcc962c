"""What the vision tower says about the pictures of one call, as the hooks collect it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tokenprune.attention import VisionAttention
from tokenprune.errors import PruningError
from tokenprune.tokens import Grid3

#: The record travels on the encoder's own output object, because `generate` encodes the pictures before it calls the
#: model, and may repeat the features for beams in between.
RECORD_ATTRIBUTE = "tokenprune_record"


@dataclass(frozen=True)
class AttentionShape:
    """How to read an attention layer's projections: q is (pictures, tokens, n_heads * width); prefix tokens first."""

    n_heads: int
    scale: float
    n_prefix: int


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """One picture: the grid of its visual tokens and the statistics that the strategy declared."""

    grid: Grid3
    statistics: Mapping[str, Any]

    @property
    def n_visual(self) -> int:
        frames, height, width = self.grid
        return frames * height * width


def encoded_images(
    grids: list[Grid3],
    pixels: Float[Tensor, "images channels height width"] | None,
    queries: Float[Tensor, "images tokens width"] | None,
    keys: Float[Tensor, "images tokens width"] | None,
    shape: AttentionShape | None,
) -> list[EncodedImage]:
    """One EncodedImage per grid; what is None was not declared."""
    images = []
    for i, grid in enumerate(grids):
        statistics: dict[str, Any] = {}
        if pixels is not None:
            statistics["pixels"] = pixels[i].detach()
        if shape is not None:
            if queries is None or keys is None:
                raise PruningError(
                    "the vision tower ran without the attention layer that the strategy reads; its model adapter names "
                    "the wrong modules. See adapters/README.md."
                )
            statistics["vision_attention"] = VisionAttention(
                rearrange(queries[i].detach(), "token (head width) -> head token width", head=shape.n_heads),
                rearrange(keys[i].detach(), "token (head width) -> head token width", head=shape.n_heads),
                shape.scale,
                shape.n_prefix,
            )
        images.append(EncodedImage(grid, statistics))
    return images

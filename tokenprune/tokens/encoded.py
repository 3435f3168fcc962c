"""What is known about one image or video before its visual tokens reach the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tokenprune.selection import Selection
from tokenprune.strategy import Strategy
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Layout


@dataclass(frozen=True)
class Modality:
    """How one kind of image enters a model.

    name: "image" or "video"; also its key in `mm_encoder_outputs`.
    function: the method of the base model that encodes it.
    pixels: what the argument that brings it is called.
    token_id: the placeholder token that its features replace.
    """

    name: str
    function: str
    pixels: str
    token_id: int


@dataclass(frozen=True)
class CapturePoints:
    """Which modules show one attention layer: the call of `attention` its arguments (rotary embeddings), and each of
    `outputs` what it returns, by a name that the tower knows ("queries", "keys")."""

    attention: nn.Module
    outputs: Mapping[str, nn.Module]


@dataclass(eq=False)
class EncodedImage:
    """One image or video: the layout of its visual tokens and the statistics that the strategy declared.

    selected: the strategy that selected among its tokens, and what, if the attention that it looked at is gone since.
    """

    layout: Layout
    statistics: Mapping[str, Any]
    selected: tuple[Strategy, Selection] | None = None

    @classmethod
    def concat(cls, tiles: Sequence[EncodedImage]) -> EncodedImage:
        """Join the tiles of one image, which were encoded as separate images."""
        if len(tiles) == 1:
            return tiles[0]
        layout = Layout.concat([tile.layout for tile in tiles])
        statistics = {}
        for name in tiles[0].statistics:
            parts = [tile.statistics[name] for tile in tiles]
            attention = isinstance(parts[0], VisionAttention)
            statistics[name] = VisionAttention.concat(parts, layout) if attention else sum(parts, ())
        return cls(layout, statistics)

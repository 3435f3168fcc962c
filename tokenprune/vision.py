"""What is known about one image or video before its visual tokens reach the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tokenprune.attention import VisionAttention
from tokenprune.layout import Layout

#: The record travels on the encoder's own output object, because `generate` encodes the pictures before it calls the
#: model, and may repeat the features for beams in between.
RECORD_ATTRIBUTE = "tokenprune_record"


@dataclass(frozen=True)
class Modality:
    """How one kind of picture enters a model.

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
class AttentionTaps:
    """Which modules show one attention layer: the call of `attention` its arguments (rotary embeddings), and each of
    `outputs` what it returns, by a name that the tower knows ("queries", "keys")."""

    attention: nn.Module
    outputs: Mapping[str, nn.Module]


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """One image or video: the layout of its visual tokens and the statistics that the strategy declared."""

    layout: Layout
    statistics: Mapping[str, Any]

    @property
    def n_visual(self) -> int:
        return self.layout.n_visual

    @classmethod
    def joined(cls, tiles: Sequence[EncodedImage]) -> EncodedImage:
        """The tiles of one picture, which were encoded as if each was one."""
        if len(tiles) == 1:
            return tiles[0]
        layout = Layout.joined([tile.layout for tile in tiles])
        statistics = {}
        for name in tiles[0].statistics:
            parts = [tile.statistics[name] for tile in tiles]
            attention = isinstance(parts[0], VisionAttention)
            statistics[name] = VisionAttention.joined(parts, layout) if attention else torch.cat(parts)
        return cls(layout, statistics)

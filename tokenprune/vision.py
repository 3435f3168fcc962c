"""What is known about one picture before its visual tokens reach the language model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

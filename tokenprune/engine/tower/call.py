"""One call of a vision tower that drops patches: what is the same for a batch of tiles and for one row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.adapters.towers.attention import Projected
from tokenprune.engine.tower.tiles import Tile
from tokenprune.selection import Selection
from tokenprune.tokens.tower import KeptInTower


class TowerCall(ABC):
    """One call of the tower, and what is left of its patches.

    selections: which visual tokens of each image are encoded at all; empty if the strategy does not select before the
        tower.
    tiles: the tiles, or frames, of the images, if the strategy selects between the layers.
    layer: the encoder layer that runs, if the strategy has yet to select after it.
    captured: what the capture points of this layer returned so far.
    """

    selections: Sequence[Selection] = ()

    def __init__(self) -> None:
        self.tiles: Sequence[Tile] = ()
        self.layer: int | None = None
        self.captured: dict[str, Tensor] = {}

    @abstractmethod
    def split(self, projected: Projected) -> Iterator[tuple[Tile, Projected | None]]:
        """Split the queries, keys and values of the layer that runs into those of each tile, (heads, tokens, width):
        prefix tokens, then the patches of one remaining visual token after the other. None for a tile without any."""

    @abstractmethod
    def keep(self, kept: Sequence[Selection | None]) -> None:
        """Give the following layers what each tile keeps, as its `left` and sizes already say, and merge into it what
        its selection merges. The selection is None for a tile without tokens."""

    @abstractmethod
    def advance(self, hidden: Float[Tensor, "*tiles tokens width"]) -> Float[Tensor, "*tiles left width"]:
        """The hidden states that the next layer is to get."""

    def outcomes(self) -> list[KeptInTower]:
        """What is left of every tile."""
        return [tile.outcome() for tile in self.tiles]

    def whole_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """What the recorder has seen of a layer's attention, with zeros for what was dropped before the tower."""
        return dict(call)

    def real(self) -> list[Bool[Tensor, " patches"]] | None:
        """Which tokens of each tile were encoded: prefix tokens, then patches in raster order. None if all were."""
        return None

"""What a strategy reads before the vision tower and between its layers, and what is left of an image there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection import StageReport
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Grid3


@dataclass(frozen=True, eq=False)
class LeftInTower:
    """One image after pruning between the layers of the vision tower, or before them.

    kept: sorted indices within the image's visual tokens.
    scores: the last score that the strategy gave each visual token; None if it did not score all of them.
    stages: the tokens left after each encoder layer that dropped some; from layer 0 on, if they were dropped before it.
    """

    kept: Int[Tensor, " kept"]
    scores: Float[Tensor, " visual"] | None
    stages: tuple[StageReport, ...]


@dataclass(frozen=True, eq=False)
class PatchTokens:
    """The visual tokens of one image or video before the vision tower.

    pixels: the colours of the patches that become each visual token, 0 to 1, patch after patch.
    grid: (t, h, w) of the visual tokens, which are in raster order.
    """

    pixels: Float[Tensor, "visual values"]
    grid: Grid3

    @property
    def n_visual(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, eq=False)
class TowerTokens:
    """The remaining patches of one tile in the vision tower, after encoder layer `layer`.

    n_more: the number of later layers after which patches can still be dropped.
    attention: the attention of the layer, over its input tokens.
    values: the value vectors of the layer, of prefix tokens (CLS) and patches.
    left: the indices of the remaining patches within the tile, ascending.
    n_patches: the number of patches of the whole tile.
    scores: the scores of the previous selection; None if it gave none.
    merged_from: how many patches each of them stands for; None if none has been merged.
    """

    layer: int
    n_more: int
    attention: VisionAttention
    values: Float[Tensor, "heads tokens width"]
    left: Int[Tensor, " left"]
    n_patches: int
    scores: Float[Tensor, " left"] | None = None
    merged_from: Float[Tensor, " left"] | None = None

    @property
    def n_left(self) -> int:
        return len(self.left)

    @property
    def sizes(self) -> Float[Tensor, " left"]:
        """How many patches each of them stands for."""
        ones = torch.ones(self.n_left, device=self.left.device)
        return ones if self.merged_from is None else self.merged_from

"""What a strategy reads before the vision tower and between its layers, and what is left of an image afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection import Merge, Selection, StageReport
from tokenprune.tokens.attention import VisionAttention
from tokenprune.tokens.layout import Grid3, one_to_one


@dataclass(frozen=True, eq=False)
class KeptInTower:
    """One image after pruning before or between the layers of the vision tower.

    kept: sorted indices within the image's visual tokens. For an image of several tiles, they may be a few more than
        the budget (`TowerStrategy.tower_budget`).
    n_visual: the number of visual tokens of the whole image.
    scores: the last score that the strategy gave each visual token, -inf if it never did; None unless it scored all of
        them before the first was dropped.
    stages: the tokens left after each encoder layer that dropped some; from layer 0 on, if they were dropped before it.
    merged_from: how many visual tokens each of `kept` stands for; None if none has been merged.
    entered: the tokens that entered the first layer; None for all.
    """

    kept: Int[Tensor, " kept"]
    n_visual: int
    scores: Float[Tensor, " visual"] | None = None
    stages: tuple[StageReport, ...] = ()
    merged_from: Float[Tensor, " kept"] | None = None
    entered: Int[Tensor, " entered"] | None = None

    @property
    def sizes(self) -> Float[Tensor, " kept"]:
        """How many visual tokens each of `kept` stands for."""
        return sizes_of(self.kept, self.merged_from)

    def at_most(self, n_kept: int) -> Selection:
        """Select what is left; if more than `n_kept` are left and have scores, select those with the highest ones."""
        kept = self.kept
        if self.scores is not None and len(kept) > n_kept:
            kept = kept[Selection.best(self.scores[kept], n_kept).kept]
        return Selection(kept, self.n_visual, self.scores)

    @classmethod
    def before(cls, selections: Iterator[Selection], n_visual: int) -> KeptInTower:
        """What pruning before the tower left of the next image, whose frames the tower may have been given as
        images."""
        kept, scores, start = [], [], 0
        while start < n_visual:
            selection = next(selections)
            kept.append(start + selection.kept)
            scores += [] if selection.scores is None else [selection.scores]
            start += selection.n_visual
        index = torch.cat(kept)
        stages = (StageReport(0, index),) if len(index) < n_visual else ()
        return cls(index, n_visual, torch.cat(scores) if len(scores) == len(kept) else None, stages)

    @classmethod
    def concat(cls, parts: Sequence[KeptInTower]) -> KeptInTower:
        """Join what is left of the tiles of one image, one after the other."""
        if len(parts) == 1:
            return parts[0]
        starts = list(accumulate((part.n_visual for part in parts), initial=0))
        scores = [part.scores for part in parts if part.scores is not None]
        merged = any(part.merged_from is not None for part in parts)
        layers = sorted({stage.layer for part in parts for stage in part.stages})
        return cls(
            torch.cat([start + part.kept for start, part in zip(starts, parts, strict=False)]),
            starts[-1],
            torch.cat(scores) if len(scores) == len(parts) else None,
            tuple(_stage_of_all(parts, starts, layer) for layer in layers),
            torch.cat([part.sizes for part in parts]) if merged else None,
            torch.cat([start + part.left_at(0) for start, part in zip(starts, parts, strict=False)]),
        )

    def left_at(self, layer: int) -> Int[Tensor, " left"]:
        """What was left when encoder layer `layer` began."""
        done = [stage.kept for stage in self.stages if stage.layer <= layer]
        entered = torch.arange(self.n_visual, device=self.kept.device) if self.entered is None else self.entered
        return done[-1] if done else entered

    def within(self, index: Int[Tensor, " part"]) -> KeptInTower:
        """Restrict what is left to the tokens among `index`."""
        inside = torch.isin(self.kept, index.to(self.kept.device))
        merged_from = None if self.merged_from is None else self.merged_from[inside]
        return replace(self, kept=self.kept[inside], merged_from=merged_from)

    def to(self, device: torch.device) -> KeptInTower:
        """Return the same on a device, apart from its stages."""
        parts = {name: getattr(self, name) for name in ("kept", "scores", "merged_from", "entered")}
        return replace(self, **{name: part.to(device) for name, part in parts.items() if part is not None})

    def of_part(self, index: Int[Tensor, " part"]) -> KeptInTower:
        """Return what is left of a part of the image, whose visual tokens are `index`; without stages."""
        inside = torch.isin(self.kept, index.to(self.kept.device))
        return KeptInTower(
            torch.searchsorted(index.to(self.kept.device), self.kept[inside]),
            len(index),
            None if self.scores is None else self.scores[index.to(self.scores.device)],
            (),
            None if self.merged_from is None else self.merged_from[inside],
        )


def sizes_of(left: Int[Tensor, " left"], merged_from: Float[Tensor, " left"] | None) -> Float[Tensor, " left"]:
    """How many visual tokens each remaining one stands for: 1 if none has been merged."""
    return torch.ones_like(left, dtype=torch.float32) if merged_from is None else merged_from


def _stage_of_all(parts: Sequence[KeptInTower], starts: Sequence[int], layer: int) -> StageReport:
    """What is left of all parts from an encoder layer on, and what was merged there."""
    kept: list[Tensor] = []
    merges: list[Merge] = []
    for part, start in zip(parts, starts, strict=False):
        n_before = sum(map(len, kept))
        merges += [
            Merge(n_before + stage.merged.targets, start + stage.merged.sources, stage.merged.weights)
            for stage in part.stages
            if stage.layer == layer and stage.merged is not None
        ]
        kept.append(start + part.left_at(layer))
    return StageReport(layer, torch.cat(kept), None, Merge.concat(merges) if merges else None)


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
    """The remaining visual tokens of one tile in the vision tower, after encoder layer `layer`.

    Where several patches become one visual token, they are dropped and merged together: in the tower a token is all its
    patches, and one token is merged into another patch by patch, the upper left one into the upper left.

    n_later_layers: the number of later layers after which tokens can still be dropped.
    attention: the attention of the layer, over its input patches. Its results are per remaining visual token.
    patch_values: the layer's value vectors, of prefix tokens (CLS) and of patches.
    left: the indices of the remaining visual tokens within the tile, ascending.
    n_visual: the number of visual tokens of the whole tile.
    n_image: the number of visual tokens of the image that the tile is part of, or is; None if the tower cannot know.
    scores: the remaining tokens' scores from the previous selection; None if it gave none.
    merged_from: how many visual tokens each remaining one stands for; None if none has been merged.
    """

    layer: int
    n_later_layers: int
    attention: VisionAttention
    patch_values: Float[Tensor, "heads patches width"]
    left: Int[Tensor, " left"]
    n_visual: int
    n_image: int | None
    scores: Float[Tensor, " left"] | None = None
    merged_from: Float[Tensor, " left"] | None = None

    @property
    def n_left(self) -> int:
        return len(self.left)

    @property
    def sizes(self) -> Float[Tensor, " left"]:
        """How many visual tokens each remaining one stands for."""
        return sizes_of(self.left, self.merged_from)

    @property
    def keys(self) -> Float[Tensor, "left width"]:
        """The keys of each remaining token, averaged over heads: those of its patches one after the other."""
        patches = self.attention.keys[0, :, self.attention.n_prefix :].float().mean(0)
        return patches.reshape(self.n_left, -1)

    @property
    def values(self) -> Float[Tensor, "heads tokens width"]:
        """The layer's value vectors, of prefix tokens (CLS) and of each remaining token: the means over its patches."""
        prefix, patches = self.patch_values.tensor_split([self.attention.n_prefix], 1)
        if patches.shape[1] == self.n_left:
            return self.patch_values
        return torch.cat([prefix, patches.unflatten(1, (self.n_left, -1)).mean(2)], 1)


def token_means(per_token: int) -> Callable[[Float[Tensor, "tiles patches"]], Float[Tensor, " visual"]]:
    """Return the map from patches to visual tokens that averages `per_token` consecutive patches."""
    return one_to_one if per_token == 1 else partial(_row_means, per_token=per_token)


def _row_means(values: Float[Tensor, "tiles patches"], per_token: int) -> Float[Tensor, " visual"]:
    return values.unflatten(1, (-1, per_token)).mean(2).flatten()

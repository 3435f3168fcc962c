"""Mosaic: the best token of every part of the image, with the tokens it stands for merged into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_choice, check_flags, check_no_effect, check_positive
from tokenprune.selection import Merge, Selection, split
from tokenprune.strategies.baselines.average_pooling import rectangles
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.similarity import unit_vectors
from tokenprune.strategy import AttentionStrategy, MergingStrategy, Record
from tokenprune.tokens import Layout, VisualTokens
from tokenprune.tokens.attention import BLOCK_ELEMENTS


@register_strategy("mosaic")
@dataclass(frozen=True)
class Mosaic(AttentionStrategy, MergingStrategy):
    """Divides the grid into as many rectangles as the budget allows, keeps the token of each that receives the most
    attention, and merges every other token into the most similar kept one nearby. No question and no calibration.

    A kept token becomes the mean of itself and of what is merged into it, weighted by attention, and keeps its position
    ID. Tokens are merged into kept ones of their own tile and frame, at most `reach` rectangles away. Several grids and
    frames share the budget in proportion to their sizes. Newline tokens belong to no rectangle and are not merged: they
    are kept in the same proportion as patches, highest scores first.

    score: "column" is the attention that a patch receives from all patches, "cls" the attention that the CLS token pays
        to it.
    merge: False drops the other tokens.
    reach: how far a token may be from the one that it is merged into, in sides of an average rectangle.
    layer: the encoder layer of the attention; None is the one whose output the projector gets.

    Not from a paper: Nüwa's cells, as many as are kept, with VFlowOpt's weighted recycling and VisionZip's choice of
    what is merged into what.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "the most attended token of each rectangle, with one rectangle per token of the budget; merges each "
            "dropped token into the most similar kept one nearby"
        ),
        source="our own",
        published={"score": "column", "merge": True, "reach": 1.5},
        waits=(5, 4),
        measured=("", "attention_bias=size"),
    )

    whole_image: ClassVar[bool] = True

    score: Literal["column", "cls"] = "column"
    merge: bool = True
    reach: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Mosaic", "score", self.score, ("column", "cls"))
        check_flags("Mosaic", merge=self.merge)
        check_positive("Mosaic", "reach", self.reach, "a distance in rectangles")
        if not self.merge:
            check_no_effect(self, "with merge=False", "reach", "attention_bias")

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The attention, and for score="cls" a tower with a CLS token."""
        return frozenset({"vision_attention", "cls"} if self.score == "cls" else {"vision_attention"})

    @property
    def reads_grid(self) -> bool:
        return True

    def select(self, tokens: VisualTokens) -> Selection:
        attention, n_visual = tokens.vision_attention, tokens.n_visual
        scores = attention.cls_row() if self.score == "cls" else attention.received()
        n_kept = self.budget(n_visual)
        if n_kept == n_visual:
            return Selection.all(n_visual, scores.device, scores)
        cells = budget_cells(tokens.layout, n_kept).to(scores.device)
        kept = best_of_each(scores, cells, n_kept)
        if not self.merge:
            return Selection(kept, n_visual, scores.detach())
        reach = self.reach * (n_visual / n_kept) ** 0.5
        sources, targets = similar_nearby(unit_vectors(tokens.features), tokens.layout, kept, reach)
        weights = scores[sources].float().clamp(min=torch.finfo(torch.float32).tiny)
        return Selection(kept, n_visual, scores.detach(), Merge.mean(targets, sources, weights, n_kept))


def budget_cells(layout: Layout, n_kept: int) -> Int[Tensor, " visual"]:
    """Return the cell of every visual token, of `n_kept` non-empty cells: rectangles of a frame, or runs of newline
    tokens. Tokens of a frame that gets none of the budget have cell `n_kept`."""
    places, frame = layout.coordinates(), layout.frame_numbers()
    groups = [(frame == i).nonzero()[:, 0] for i in range(-1, int(frame.max()) + 1)]
    shares = split(n_kept, [len(group) for group in groups])
    cells, begin = torch.full((layout.n_visual,), n_kept, device="cpu"), 0
    for i, (group, share) in enumerate(zip(groups, shares, strict=True)):
        if share:
            height = 1 if i == 0 else len(places[group, 2].unique())
            cells[group] = begin + rectangles(share, height, len(group) // height)[0]
            begin += share
    return cells


def best_of_each(
    scores: Float[Tensor, " visual"], cells: Int[Tensor, " visual"], n_cells: int
) -> Int[Tensor, " cells"]:
    """Return the token with the highest score of each of the first `n_cells` cells, ascending; ties go to the first
    token."""
    order = scores.argsort(descending=True, stable=True)
    rank = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device))
    best = rank.new_full((n_cells + 1,), len(scores)).scatter_reduce(0, cells, rank, "amin")
    return order[best[:n_cells]].sort().values


def similar_nearby(
    vectors: Float[Tensor, "visual width"], layout: Layout, kept: Int[Tensor, " kept"], reach: float
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Return the merged tokens and, for each, the index of its target among the kept ones.

    A kept token goes to itself, any other to the kept one with the highest cosine at most `reach` tokens away in the
    same raster, frame and tile. Tokens without a target, and newline tokens, are left out. Computed in blocks.
    """
    device = vectors.device
    # A single copy, because every copy synchronises with the GPU.
    placed = torch.cat([layout.regions()[:, None], layout.coordinates()[:, 2:]], 1).to(device)
    regions, at = placed[:, 0], placed[:, 1:].float()
    found = []
    for block in torch.arange(layout.n_visual, device=device).split(max(1, BLOCK_ELEMENTS // len(kept))):
        cosines = vectors[block] @ vectors[kept].T
        # Not cdist: with TF32, a GPU rounds its products of large coordinates to eleven bits.
        down, across = (place[block][:, None] - place[kept] for place in at.T)
        near = (down.square() + across.square() <= reach**2) & (regions[block][:, None] == regions[kept])
        near &= regions[block][:, None] >= 0
        cosines = cosines.masked_fill(~near, -torch.inf).masked_fill(block[:, None] == kept, torch.inf)
        highest, target = cosines.max(1)
        found.append(torch.where(highest > -torch.inf, target, -1))
    targets = torch.cat(found)
    sources = (targets >= 0).nonzero()[:, 0]
    return sources, targets[sources]

"""Nüwa (https://arxiv.org/abs/2602.02951)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_flags, check_no_count, check_no_effect, check_positive
from tokenprune.errors import SettingError
from tokenprune.selection import Merge, Selection, budget
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.similarity import unit_vectors
from tokenprune.strategy import AttentionStrategy, MergingStrategy, Record, ScoreStrategy, Stage, StagedStrategy
from tokenprune.tokens import Layout, StageTokens, VisualTokens
from tokenprune.tokens.attention import BLOCK_ELEMENTS

#: The share of the tokens that enter the language model, as a multiple of the average: 112 of 64.
ENTERING = 1.75
#: Tokens that score below this quantile of the kept ones gather from their surroundings.
QUANTILE = 0.55


@register_strategy("nuwa")
@dataclass(frozen=True)
class Nuwa(AttentionStrategy, MergingStrategy, StagedStrategy, ScoreStrategy):
    """Keeps the visual tokens that the CLS token attends to most within cells of the grid, and lets the weaker of them
    gather similar tokens nearby. From the middle of the language model on, keeps those that the last prompt token
    attends to most.

    A gathering token i becomes a mean of all tokens j of its tile, with weights in proportion to
    max(0, cos(x_i, x_j)) * max(0, 1 - distance_ij / reach); its own weight is then set to their sum.

    keep_ratio: the average over the layers: 1.75 times as many tokens enter the language model, and from the middle
        layer on, few enough are kept for the average to hold, as the paper's 112, 224 and 336 tokens of 576 give 64,
        128 and 192. A count `keep` is rejected.
    cells: see `ScoreStrategy`. With "auto", sides are those of the paper for its budgets.
    gather, progressive: False disables that part; without stages, keep_ratio of the tokens are kept throughout. A
        language model of one layer has no middle: SettingError, unless progressive is False.
    reach: the distance in tokens at which gathering ends.
    layer: the encoder layer of the attention; None is the one whose output the projector gets.
    features: which features are compared, see `AttentionStrategy`: with "tower", as in the released code, the mean
        hidden states of the tower's last third, in a tower of 24 layers states 16 to 24.

    Without a CLS token, the attention that a patch receives from all patches is used. Deviations from the released
    code: tokens gather after the projector; their weights add up to 1, where the code's can reach 2; cells at the edges
    of an odd grid are smaller, where the code leaves the last row and column out; below a ninth, cells are larger than
    2 x 2; the layers that stages start at scale with the model's depth (the code has layer 16 of 32).
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "the most attended tokens in each cell of the grid, some of which absorb their neighbours; from "
            "halfway through the decoder, those that the last prompt token attends to"
        ),
        source="paper; released code: distance, the tower's features",
        published={"features": "tower", "gather": True, "progressive": True, "cells": "auto", "reach": 280**0.5},
        stages=([14], [16], [18]),
        waits=(10, 9),
        measured=("layer=-2",),
        claimed="54.9",
        best_with_cls=True,
    )

    needs: ClassVar[frozenset[str]] = frozenset({"vision_attention", "text_attention"})
    compares: ClassVar[str] = "late_features"

    features: Literal["tower", "projected"] = field(default="tower", kw_only=True)
    gather: bool = True
    progressive: bool = True
    reach: float = 280**0.5
    cells: Literal["auto"] | int | None = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_no_count("Nuwa", self.keep)
        check_flags("Nuwa", gather=self.gather, progressive=self.progressive)
        check_positive("Nuwa", "reach", self.reach, "a distance in tokens")
        if not self.gather:
            check_no_effect(self, "with gather=False", "reach", "attention_bias", "features")
            object.__setattr__(self, "needs", type(self).needs)  # nothing is compared

    @property
    def reads_grid(self) -> bool:
        return self.gather or self.cells is not None

    @property
    def entering(self) -> float:
        """The share of the visual tokens that enter the language model."""
        assert self.keep_ratio is not None
        return min(1.0, ENTERING * self.keep_ratio) if self.progressive else self.keep_ratio

    def budget(self, n_visual: int) -> int:
        return budget(n_visual, self.entering, None)

    def for_part(self, n_kept: int, n_visual: int) -> Nuwa:
        return replace(self, keep_ratio=n_kept / n_visual, progressive=False, budget_per="image")

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        assert self.keep_ratio is not None
        half = n_layers // 2
        if not self.progressive or self.entering == self.keep_ratio:
            return ()
        if not half:
            raise SettingError(
                f"Nuwa: a language model of one layer has no middle to prune in, so {self.entering:.3g} of the tokens "
                f"would stay, and not the average of {self.keep_ratio}. Write progressive=False."
            )
        share = (self.keep_ratio * n_layers - self.entering * half) / (n_layers - half)
        return (Stage(half, share),)

    def select(self, tokens: VisualTokens) -> Selection:
        scores, n_kept = tokens.vision_attention.cls_or_mean(), self.budget(tokens.n_visual)
        selection = self.best(scores, n_kept, tokens)
        if not self.gather or n_kept == tokens.n_visual:
            return selection
        chosen = scores[selection.kept]
        weak = chosen < chosen.float().quantile(QUANTILE)
        if tokens.n_newlines:
            weak &= ~tokens.is_newline[selection.kept]
        vectors, parts = unit_vectors(self.compared(tokens)), []
        for places in weak.nonzero()[:, 0].split(max(1, BLOCK_ELEMENTS // tokens.n_visual)):
            near = nearness(tokens.layout, selection.kept[places].cpu(), self.reach).to(vectors.device)
            weights = gathering_weights(vectors, selection.kept[places], near)
            targets, sources = weights.nonzero().T
            parts.append(Merge(places[targets], sources, weights[targets, sources]))
        merge = Merge.concat(parts)
        return replace(selection, merged=merge) if len(merge.sources) else selection

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return Selection.best(tokens.attention.from_last(), stage.budget(tokens.n_visual))


def nearness(layout: Layout, places: Int[Tensor, " places"], reach: float) -> Float[Tensor, "places visual"]:
    """Return 1 - distance / reach, at least 0, of the tokens at `places` to every visual token of the same raster,
    frame and tile; 0 for others and for newline tokens."""
    at, regions = layout.coordinates()[:, 2:].float(), layout.regions()
    near = 1 - torch.cdist(at[places], at) / reach
    same = (regions[places][:, None] == regions) & (regions >= 0)
    return near.clamp(min=0) * same


def gathering_weights(
    vectors: Float[Tensor, "visual width"], places: Int[Tensor, " places"], near: Float[Tensor, "places visual"]
) -> Float[Tensor, "places visual"]:
    """Return the weights of all tokens in the features of those at `places`: cosine, at least 0, times nearness,
    normalised, then 1 for the token itself, and normalised again."""
    weights = (vectors[places] @ vectors.T).clamp(min=0) * near
    weights = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    weights = weights.scatter(1, places[:, None], 1.0)
    return weights / weights.sum(1, keepdim=True)

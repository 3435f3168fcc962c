"""VisPruner (https://arxiv.org/abs/2412.01818)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_share
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.similarity import most_similar, unit_vectors
from tokenprune.strategy import AttentionStrategy, Record, ScoreStrategy
from tokenprune.tokens import VisualTokens
from tokenprune.tokens.attention import BLOCK_ELEMENTS


@register_strategy("vispruner")
@dataclass(frozen=True)
class VisPruner(AttentionStrategy, ScoreStrategy):
    """Keeps the visual tokens that the CLS token attends to most, and diverse ones of the others: duplicates are
    dropped in rounds until the budget is met.

    important: the share of the budget that goes to attention.
    layer: the encoder layer of the attention; None is the one whose output the projector gets.
    features: which features are compared, see `AttentionStrategy`. The released code compares the tower's.
    cells: take the important tokens within cells of the grid, see `ScoreStrategy`. The paper has no cells.
    mass, least: keep what each image needs by the attention, see `ScoreStrategy`. The paper has a fixed budget.

    Without a CLS token, the attention that a patch receives from all patches is used. Deviations from the released
    code: with more than 576 visual tokens, a round drops proportionally more than 8; the tiles of an image compete,
    unless budget_per is "tile", where the code treats each as an image.
    """

    record: ClassVar[Record] = Record(
        keeps="half of the budget by attention, the other half by removing duplicates",
        source="released commands: as many important as diverse tokens",
        published={"features": "tower", "important": 0.5},
        waits=(2, 1),
        measured=("layer=-2",),
        claimed="55.6*",
        best_with_cls=True,
    )

    compares: ClassVar[str] = "tower_features"

    features: Literal["tower", "projected"] = field(default="tower", kw_only=True)
    important: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("VisPruner", "important", self.important, "a share of the budget")

    def select(self, tokens: VisualTokens) -> Selection:
        scores = tokens.vision_attention.cls_or_mean()
        n_kept = self.n_to_keep(scores)
        n_important = int(self.important * n_kept)
        order = self.ranked(scores, max(1, n_important), tokens)
        step = max(8, tokens.n_visual // 72)
        diverse = drop_duplicates(order[n_important:], unit_vectors(self.compared(tokens)), n_kept - n_important, step)
        kept = torch.cat([order[:n_important], diverse]).sort().values
        return Selection(kept, tokens.n_visual, scores)


def drop_duplicates(
    left: Int[Tensor, " left"], vectors: Float[Tensor, "visual width"], count: int, step: int = 8
) -> Int[Tensor, " count"]:
    """Reduce the tokens to `count` in rounds.

    A round compares every second token with those in between, and drops up to `step` tokens with the most similar
    partners.
    """
    if count == 0:
        return left[:0]
    # Rounds compare the same tokens again and again; unless the image is too large, all pairs are computed once.
    pairs = vectors[left] @ vectors[left].T if len(left) ** 2 <= BLOCK_ELEMENTS else None
    places = torch.arange(len(left), device=left.device)
    while len(places) > count:
        compared, partners = places[::2], places[1::2]
        if pairs is None:
            similarity = most_similar(vectors[left[compared]], vectors[left[partners]])[0][:, 0]
        else:
            similarity = pairs.index_select(0, compared).index_select(1, partners).amax(1)
        order = similarity.argsort(descending=True, stable=True)
        places = torch.cat([compared[order[min(step, len(places) - count) :]], partners])
    return left[places]

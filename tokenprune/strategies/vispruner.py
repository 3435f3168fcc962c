"""VisPruner (https://arxiv.org/abs/2412.01818)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategies._parts.similarity import most_similar, unit
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import AttentionStrategy
from tokenprune.tokens import VisualTokens


@register_strategy("vispruner")
@dataclass(frozen=True)
class VisPruner(AttentionStrategy):
    """Keeps the visual tokens that the CLS token attends to most, and, of the others, diverse ones: duplicates are
    dropped round by round until the budget is met.

    important: the share of the budget that is kept for the attention it gets.
    layer: the encoder layer of the attention; None is the one whose output the projector gets.

    Without a CLS token, attention is what a patch receives. Deviations from the released code: features are compared
    after the projector; where there are more than 576 visual tokens, a round drops more than 8 in proportion.
    """

    important: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important <= 1:
            raise SettingError(
                f"VisPruner: important={self.important!r} is a share of the budget; write one in [0, 1]."
            )

    def select(self, tokens: VisualTokens) -> Selection:
        scores = tokens.vision_attention.cls_or_mean()
        order = scores.argsort(descending=True, stable=True)
        n_kept = self.budget(tokens.n_visual)
        n_important = int(self.important * n_kept)
        step = max(8, tokens.n_visual // 72)
        diverse = distinct(order[n_important:], unit(tokens.features), n_kept - n_important, step)
        kept = torch.cat([order[:n_important], diverse]).sort().values
        return Selection(kept, tokens.n_visual, scores)


def distinct(
    left: Int[Tensor, " left"], vectors: Float[Tensor, "visual width"], count: int, step: int = 8
) -> Int[Tensor, " count"]:
    """`count` of the tokens that are left. In a round, every second of them is compared with those between, and up to
    `step` of those with the most similar partner are dropped."""
    if count == 0:
        return left[:0]
    while len(left) > count:
        compared, partners = left[::2], left[1::2]
        similarity = most_similar(vectors[compared], vectors[partners])[0][:, 0]
        order = similarity.argsort(descending=True, stable=True)
        left = torch.cat([compared[order[min(step, len(left) - count) :]], partners])
    return left

"""DivPrune (https://arxiv.org/abs/2503.02175)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection import Selection
from tokenprune.strategies._parts.similarity import most_similar, unit
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Strategy
from tokenprune.tokens import VisualTokens


@register_strategy("divprune")
@dataclass(frozen=True)
class DivPrune(Strategy):
    """Keeps the visual tokens that are most different from each other: a greedy solution of the max-min diversity
    problem, under one minus the cosine of the features after the projector.

    The paper prunes an image of several tiles tile by tile or whole: `budget_per` says which. Newline tokens are
    all alike, so one of them is kept, and the others last.
    """

    def select(self, tokens: VisualTokens) -> Selection:
        chosen = spread(unit(tokens.features), self.budget(tokens.n_visual))
        return Selection(chosen.sort().values, tokens.n_visual)


def spread(vectors: Float[Tensor, "visual width"], n_kept: int) -> Int[Tensor, " kept"]:
    """The unit vector that is least similar to the one nearest to it, and then again and again the one that is least
    similar to the nearest of those chosen before."""
    if n_kept == len(vectors):
        return torch.arange(n_kept, device=vectors.device)
    nearest = most_similar(vectors, vectors, 2)[0][:, 1]  # the first is itself
    chosen = [nearest.argmin(0, keepdim=True)]  # with an axis, so that no index is asked of a GPU
    nearest = torch.full_like(nearest, -torch.inf)
    for _ in range(n_kept - 1):
        nearest = torch.maximum(nearest, vectors @ vectors[chosen[-1]][0])
        nearest[chosen[-1]] = torch.inf
        chosen.append(nearest.argmin(0, keepdim=True))
    return torch.cat(chosen)

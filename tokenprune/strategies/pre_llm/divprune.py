"""DivPrune (https://arxiv.org/abs/2503.02175)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.similarity import Cosines, unit_vectors
from tokenprune.strategy import Record, Strategy
from tokenprune.tokens import VisualTokens


@register_strategy("divprune")
@dataclass(frozen=True)
class DivPrune(Strategy):
    """Keeps the visual tokens that differ most from each other: a greedy solution of the max-min diversity problem.
    The next token is the j with the largest min_k (1 - cos(x_j, x_k)) over the kept k, where x are projected features.

    The paper prunes a tiled image either tile by tile or as a whole: set `budget_per`. Newline tokens are identical,
    so one of them is kept, and the others are chosen last.
    """

    record: ClassVar[Record] = Record(
        keeps="the tokens that differ most from each other; reads features only",
        waits=(2, 1),
        claimed="54.5*",
    )

    def select(self, tokens: VisualTokens) -> Selection:
        chosen = most_diverse(unit_vectors(tokens.features), self.budget(tokens.n_visual))
        return Selection(chosen.sort().values, tokens.n_visual)


def most_diverse(vectors: Float[Tensor, "visual width"], n_kept: int) -> Int[Tensor, " kept"]:
    """Choose first the unit vector that is least similar to its nearest neighbour, and then repeatedly the one that is
    least similar to the nearest vector chosen so far."""
    if n_kept == len(vectors):
        return torch.arange(n_kept, device=vectors.device)
    cosines = Cosines(vectors)
    nearest = torch.cat([block.topk(2, dim=1).values[:, 1] for block in cosines.blocks()])  # the first is itself
    chosen = [nearest.argmin(0, keepdim=True)]  # with an axis, so that the index stays on the GPU
    nearest = torch.full_like(nearest, -torch.inf)
    for _ in range(n_kept - 1):
        nearest = torch.maximum(nearest, cosines.of(chosen[-1])[0])
        nearest[chosen[-1]] = torch.inf
        chosen.append(nearest.argmin(0, keepdim=True))
    return torch.cat(chosen)

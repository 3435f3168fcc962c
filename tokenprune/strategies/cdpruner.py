"""CDPruner (https://arxiv.org/abs/2506.10967)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.errors import PruningError
from tokenprune.selection import Selection
from tokenprune.strategies._parts.similarity import unit
from tokenprune.strategy import Strategy
from tokenprune.tokens import VisualTokens

SPENT = 1e-6  # what is left of a token that the kept ones explain, beside the 1 of the most relevant token


@dataclass(frozen=True)
class CDPruner(Strategy):
    """Keeps the visual tokens that are most diverse, given the question: the most probable set of a determinantal
    point process whose kernel is the cosine of two tokens' features after the projector, times the relevance of both.

    relevance: how little each visual token has to do with the question, the paper's relevance being the negative
        cosine to CLIP's text embedding: one number per visual token, from `tokens.pixels`. Numbers are scaled to 0..1.
        `tokenprune.adapters.clip_relevance.ClipRelevance` is the paper's.

    The paper loads CLIP's text tower beside LLaVA's vision tower. No model of transformers comes with one, so without
    `relevance` patch() raises UnsupportedError, and the strategy has no name for patch().
    """

    relevance: Callable[[VisualTokens], Float[Tensor, " visual"]] | None = None

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A `relevance` reads the pixels; without one, a text tower that no model offers."""
        return frozenset({"text_tower"} if self.relevance is None else {"pixels"})

    def select(self, tokens: VisualTokens) -> Selection:
        if self.relevance is None:
            raise PruningError("CDPruner needs to know what is relevant: write CDPruner(relevance=...).")
        relevance = self.relevance(tokens).detach().float()
        if relevance.shape != (tokens.n_visual,) or not bool(relevance.isfinite().all()):
            raise PruningError(
                f"CDPruner: relevance must give one finite number for each of the {tokens.n_visual} visual tokens, and "
                f"gave {tuple(relevance.shape)} of {relevance.dtype}."
            )
        relevance = relevance - relevance.min()
        relevance = (relevance + SPENT) / relevance.max().clamp(min=SPENT)
        kept = most_probable(relevance[:, None] * unit(tokens.features), self.budget(tokens.n_visual))
        return Selection(kept.sort().values, tokens.n_visual, relevance)


def most_probable(vectors: Float[Tensor, "visual width"], n_kept: int) -> Int[Tensor, " kept"]:
    """The greedy choice of vectors that span the largest volume: each adds most to the determinant of their products.
    When those chosen span all others, the longest are left."""
    gain = vectors.square().sum(1)
    floor = SPENT * gain
    rows = vectors.new_zeros(n_kept, len(vectors))  # of the Cholesky factor of the chosen vectors' products
    chosen = []
    for i in range(n_kept):
        best = torch.maximum(gain, floor).argmax(0, keepdim=True)  # with an axis, so that no index is asked of a GPU
        row = (vectors @ vectors[best][0] - rows[:i, best][:, 0] @ rows[:i]) / gain[best].clamp(min=SPENT**2).sqrt()
        rows[i] = row * (gain[best] > SPENT)
        gain = gain - rows[i].square()
        floor[best] = gain[best] = -torch.inf
        chosen.append(best)
    return torch.cat(chosen)

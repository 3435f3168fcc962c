"""CDPruner (https://arxiv.org/abs/2506.10967)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.errors import PruningError
from tokenprune.selection import Selection
from tokenprune.strategies.shared.similarity import unit_vectors
from tokenprune.strategy import Record, Strategy
from tokenprune.tokens import VisualTokens

SPENT = 1e-6  # the gain below which kept tokens explain a token; the most relevant token starts at 1


@dataclass(frozen=True)
class CDPruner(Strategy):
    """Keeps the most diverse visual tokens, given the question: the most probable set of a determinantal point process
    whose kernel is the cosine of two tokens' projected features, times the relevance of both: r_i cos(x_i, x_j) r_j.

    relevance: returns one number per visual token, computed from `tokens.pixels` and then scaled to 0..1. The paper's
        is `tokenprune.adapters.clip_relevance.ClipRelevance`: the negative cosine to CLIP's text embedding, so a higher
        number means less similar to the question.

    The paper loads CLIP's text tower beside LLaVA's vision tower. Models in transformers do not include one, so without
    `relevance` patch() raises UnsupportedError, and the strategy has no registered name. Deviations from the released
    code: the tiles of an image compete, unless budget_per is "tile", where the code treats each as an image; their
    relevance is then scaled tile by tile, where the code scales all together.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "the most diverse tokens given the question; needs a CLIP text tower, see "
            "`tokenprune.adapters.clip_relevance`"
        )
    )

    relevance: Callable[[VisualTokens], Float[Tensor, " visual"]] | None = None

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The pixels, for `relevance`; without it, a text tower, which no model offers."""
        return frozenset({"text_tower"} if self.relevance is None else {"pixels"})

    def select(self, tokens: VisualTokens) -> Selection:
        if self.relevance is None:
            raise PruningError(
                "CDPruner has no relevance: write CDPruner(relevance=ClipRelevance(clip, tokenizer, question))."
            )
        relevance = self.relevance(tokens).detach().float()
        if relevance.shape != (tokens.n_visual,) or not bool(relevance.isfinite().all()):
            raise PruningError(
                f"CDPruner: relevance must return one finite number for each of the {tokens.n_visual} visual tokens; "
                f"it returned shape {tuple(relevance.shape)}, or numbers that are not finite."
            )
        relevance = relevance - relevance.min()
        relevance = (relevance + SPENT) / relevance.max().clamp(min=SPENT)
        kept = most_probable(relevance[:, None] * unit_vectors(tokens.features), self.budget(tokens.n_visual))
        return Selection(kept.sort().values, tokens.n_visual, relevance)


def most_probable(vectors: Float[Tensor, "visual width"], n_kept: int) -> Int[Tensor, " kept"]:
    """Choose greedily the vectors that span the largest volume: each adds most to the determinant of their products.

    Once the chosen vectors span all others, the longest remaining ones follow.
    """
    gain = vectors.square().sum(1)
    floor = SPENT * gain
    rows = vectors.new_zeros(n_kept, len(vectors))  # of the Cholesky factor of the chosen vectors' products
    chosen = []
    for i in range(n_kept):
        best = torch.maximum(gain, floor).argmax(0, keepdim=True)  # with an axis, so that the index stays on the GPU
        row = (vectors @ vectors[best][0] - rows[:i, best][:, 0] @ rows[:i]) / gain[best].clamp(min=SPENT**2).sqrt()
        rows[i] = row * (gain[best] > SPENT)
        gain = gain - rows[i].square()
        floor[best] = gain[best] = -torch.inf
        chosen.append(best)
    return torch.cat(chosen)

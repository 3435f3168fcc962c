"""EVS, Efficient Video Sampling (https://arxiv.org/abs/2510.14624)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.shares import evenly_spaced
from tokenprune.strategy import Record, VideoStrategy
from tokenprune.tokens import VisualTokens

#: The change of the first frame's tokens, above any possible one. vLLM's number.
FIRST = 255.0


@register_strategy("evs")
@dataclass(frozen=True)
class EVS(VideoStrategy):
    """Keeps the first frame, and of all other frames the tokens that differ most from the same place one frame earlier.

    Change is 1 - the cosine of the two features. All frames compete, so a still video keeps its first frame and
    whatever else the budget allows, and after a cut nearly the whole next frame is kept.

    vLLM keeps at least one whole frame. Here the budget is exact: one smaller than a frame is spread evenly over the
    first frame. With larger budgets, the selection is vLLM's.
    """

    record: ClassVar[Record] = Record(
        keeps="the first frame, then the tokens that change most from one frame to the next",
        unmeasured="compares frames of videos",
    )

    def select(self, tokens: VisualTokens) -> Selection:
        return self.filled(tokens, self.choose)

    def choose(self, tokens: VisualTokens, n_kept: int) -> tuple[Float[Tensor, "frames places"], Int[Tensor, " order"]]:
        frames = pairwise(tokens.frames.each(tokens.features))
        change = torch.stack([1 - cosine_similarity(now, before, dim=-1) for before, now in frames])
        scores = torch.cat([torch.full_like(change[:1], FIRST), change])
        if n_kept < tokens.frames.n_places:
            return scores, evenly_spaced(tokens.frames.n_places, n_kept, scores.device)
        return scores, scores.flatten().argsort(descending=True, stable=True)

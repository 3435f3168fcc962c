"""The base class of strategies that choose among all places of all frames, and keep what stands beside them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection import Selection
from tokenprune.strategy import VideoStrategy
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class PlaceStrategy(VideoStrategy):
    """Scores the tokens that show a place, and orders them for a budget."""

    @abstractmethod
    def choose(self, tokens: VisualTokens, n_kept: int) -> tuple[Float[Tensor, "frames places"], Int[Tensor, " order"]]:
        """Return the scores, and an order whose first `n_kept` are kept. An index in it is frame * places + place."""

    def select(self, tokens: VisualTokens) -> Selection:
        frames, n_visual = tokens.frames, tokens.n_visual
        beside = frames.kept_beside(self.budget(n_visual))
        n_kept = self.budget(n_visual) - len(beside)
        scores, order = self.choose(tokens, n_kept)
        places = frames.places.flatten()
        kept = torch.cat([places[order[:n_kept]], beside]).sort().values
        # What stands beside the frames is not scored: it gets the highest score.
        of_tokens = scores.amax().expand(n_visual).index_copy(0, places, scores.flatten())
        return Selection(kept, n_visual, of_tokens)

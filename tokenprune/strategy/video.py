"""Strategies that compare the frames of a video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection import Selection
from tokenprune.strategy.base import Strategy
from tokenprune.tokens.visual import VisualTokens

Choose = Callable[[VisualTokens, int], tuple[Float[Tensor, "frames places"], Int[Tensor, " order"]]]


@dataclass(frozen=True)
class VideoStrategy(Strategy):
    """Compares the frames of a video, `tokens.frames`, and shares one budget among them.

    The budget is per video. Images, and videos of one frame, raise PruningError. Newline and CLS tokens belong to no
    frame but count too; `Frames.kept_extra_tokens` says which of them to keep.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"frames"})
    whole_image: ClassVar[bool] = True
    budgets: ClassVar[tuple[str, ...]] = ("video",)

    budget_per: Literal["image", "tile", "video"] = "video"

    def filled(self, tokens: VisualTokens, choose: Choose) -> Selection:
        """Fill the budget with the tokens that show a place, in an order by `choose`.

        choose: from the tokens and how many of them show a place and are kept, their scores, and an order of which as
            many are kept; its indices are frame * places + place.
        """
        frames, n_visual = tokens.frames, tokens.n_visual
        extra = frames.kept_extra_tokens(self.budget(n_visual))
        n_kept = self.budget(n_visual) - len(extra)
        scores, order = choose(tokens, n_kept)
        in_frames = frames.frame_tokens.flatten()
        kept = torch.cat([in_frames[order[:n_kept]], extra]).sort().values
        # Extra tokens are not scored: they get the highest score.
        of_tokens = scores.amax().expand(n_visual).index_copy(0, in_frames, scores.flatten())
        return Selection(kept, n_visual, of_tokens)

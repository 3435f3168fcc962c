"""What is left of an image after each of several pruning steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection.merge import Merge


@dataclass(frozen=True, eq=False)
class StageReport:
    """The effect of one in-LLM stage on one image, from decoder layer `layer` on; in an image report's `in_tower`, the
    effect of pruning in the vision tower, from encoder layer `layer` on.

    kept: sorted indices within the image's visual tokens.
    scores: the importance score of every visual token, NaN for tokens dropped earlier; None if the strategy gives none.
    merged: the tokens merged into kept ones; None if there are none.
    """

    layer: int
    kept: Int[Tensor, " kept"]
    scores: Float[Tensor, " visual"] | None = None
    merged: Merge | None = None


@dataclass(frozen=True, eq=False)
class StepReport:
    """What one of several strategies in sequence kept of an image.

    strategy: the name of its class.
    kept: sorted indices within the image's visual tokens.
    """

    strategy: str
    kept: Int[Tensor, " kept"]


def scores_of_all(
    scores: Float[Tensor, " left"] | None, left: Int[Tensor, " left"], n_visual: int, missing: float = math.nan
) -> Float[Tensor, " visual"] | None:
    """Extend the scores of the tokens that were `left` before a step to all `n_visual` tokens of the image, with
    `missing` for the others."""
    if scores is None or len(left) == n_visual:
        return scores
    return scores.new_full((n_visual,), missing).index_copy(0, left, scores)

"""SCOPE: saliency-coverage oriented pruning (https://arxiv.org/abs/2510.24214)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import is_number
from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.similarity import Cosines, unit_vectors
from tokenprune.strategy import AttentionStrategy, Record
from tokenprune.tokens import VisualTokens

#: How many tokens' values are recomputed at once.
AT_ONCE = 64
#: The highest power of the attention. Higher ones make most of it zero in float32, and zeros have no order.
HIGHEST = 10


@register_strategy("scope")
@dataclass(frozen=True)
class SCOPE(AttentionStrategy):
    """Keeps visual tokens that together resemble all others, and that the CLS token attends to: greedily, the token
    that adds most coverage, times its attention.

    The coverage c_i of a token is its largest cosine to a kept one, at least 0. With a_j for the attention, the next
    token is the j with the largest a_j^alpha * sum_i max(0, cos(x_i, x_j) - c_i).

    alpha: the power of the attention, in [0, 10]. 0 chooses by coverage alone; the paper uses 1.
    layer: the encoder layer of the attention; None is the one whose output the projector gets.
    features: which features are compared, see `AttentionStrategy`. The released code compares the tower's.

    Without a CLS token, the attention that a patch receives from all patches is used. A deviation from the released
    code: the tiles of an image compete, unless budget_per is "tile", where the code treats each as an image.
    """

    record: ClassVar[Record] = Record(
        keeps=(
            "greedily, the token with the highest attention times gain in coverage (how well the kept tokens "
            "resemble all others)"
        ),
        source="released scripts: ALPHA",
        published={"features": "tower", "alpha": 1.0},
        waits=(2, 1),
        measured=("layer=-2",),
        claimed="56.6",
        best_with_cls=True,
    )

    compares: ClassVar[str] = "tower_features"

    features: Literal["tower", "projected"] = field(default="tower", kw_only=True)
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.alpha) or not 0 <= self.alpha <= HIGHEST:
            raise SettingError(
                f"SCOPE: alpha={self.alpha!r} is not a power that single precision can hold; write a number in "
                f"[0, {HIGHEST}]."
            )

    def select(self, tokens: VisualTokens) -> Selection:
        scores, n_kept = tokens.vision_attention.cls_or_mean(), self.budget(tokens.n_visual)
        if n_kept == tokens.n_visual:
            return Selection.all(n_kept, scores.device, scores)
        # Scaling by a power of two changes no choice, and keeps powers of the attention from underflowing to zero.
        saliency = torch.ldexp(scores.detach(), -scores.detach().max().frexp().exponent) ** self.alpha
        chosen = most_covering(unit_vectors(self.compared(tokens)), saliency, n_kept)
        return Selection(chosen.sort().values, tokens.n_visual, scores)


def most_covering(
    vectors: Float[Tensor, "visual width"], saliency: Float[Tensor, " visual"], n_kept: int
) -> Int[Tensor, " kept"]:
    """Choose greedily `n_kept` unit vectors by saliency times added coverage. Ties go to the first."""
    cosines = Cosines(vectors)
    if cosines.stored is not None and vectors.device.type != "cpu":
        return _without_waiting(cosines.stored, saliency, n_kept)
    return _lazily(cosines, saliency, n_kept)


def _without_waiting(
    cosines: Float[Tensor, "visual visual"], saliency: Float[Tensor, " visual"], n_kept: int
) -> Int[Tensor, " kept"]:
    """Compute what every token adds at every step: more work than `_lazily`, but the CPU waits for nothing."""
    covered = torch.zeros_like(saliency)
    taken = torch.zeros_like(saliency, dtype=torch.bool)
    chosen = []
    for _ in range(n_kept):
        added = (cosines - covered).clamp(min=0).sum(1)
        best = (added * saliency).masked_fill(taken, -torch.inf).argmax(0, keepdim=True)
        covered = torch.maximum(covered, cosines[best][0])
        taken[best] = True
        chosen.append(best)
    return torch.cat(chosen)


def _lazily(cosines: Cosines, saliency: Float[Tensor, " visual"], n_kept: int) -> Int[Tensor, " kept"]:
    """Lazy greedy: what a token adds never grows, so only tokens whose last value exceeds the current best are
    recomputed."""
    n_visual = len(saliency)
    covered = torch.zeros_like(saliency)
    worth = torch.cat([block.clamp(min=0).sum(1) for block in cosines.blocks()]) * saliency
    fresh, taken = torch.ones_like(worth, dtype=torch.bool), torch.zeros_like(worth, dtype=torch.bool)
    chosen = []
    for _ in range(n_kept):
        while not fresh[best := worth.argmax(0, keepdim=True)]:
            index = worth.masked_fill(fresh, -torch.inf).topk(min(AT_ONCE, n_visual)).indices
            value = (cosines.of(index) - covered).clamp(min=0).sum(1) * saliency[index]
            worth[index] = torch.where(fresh[index], worth[index], value)
            fresh[index] = True
        covered = torch.maximum(covered, cosines.of(best)[0])
        worth[best] = -torch.inf
        taken[best] = True
        fresh = taken.clone()  # a chosen token is never recomputed
        chosen.append(best)
    return torch.cat(chosen)

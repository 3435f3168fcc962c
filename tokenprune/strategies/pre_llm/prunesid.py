"""PruneSID: pruning by synergistic importance and diversity (https://arxiv.org/abs/2603.09480)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_positive
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.similarity import unit_vectors
from tokenprune.strategy import AttentionStrategy, Record
from tokenprune.tokens import VisualTokens
from tokenprune.tokens.cells import rank_within

#: Kept tokens per group, on average.
PER_GROUP = 4
#: The budget at which the tokens of a group may be as similar as those of the image are on average.
EVEN_BUDGET = 32
#: The tokens that a group may keep, for each CAP_BUDGET of the budget.
CAP, CAP_BUDGET = 5, 64


@register_strategy("prunesid")
@dataclass(frozen=True)
class PruneSID(AttentionStrategy):
    """Groups visual tokens by meaning, drops those that resemble a better one of their group, and shares the budget
    among groups by how many tokens remain in each.

    A token's group is the principal component, of a quarter as many as the budget, in which it weighs most. Within a
    group, tokens are taken by the attention that the CLS token pays to them, each one suppressing those whose cosine to
    it exceeds a threshold. Every group keeps its first; the rest of the budget is shared in proportion to the numbers
    of tokens that were not suppressed, at most five for each 64 of the budget.

    similar: the threshold, as a multiple of the mean cosine of the image's tokens, for each 32 tokens of the budget:
        similar * budget / 32 * mean cosine. A larger budget suppresses less.
    layer: the encoder layer of the attention; None is the one whose output the projector gets.
    features: which features are compared, see `AttentionStrategy`. The released code compares the tower's.

    Without a CLS token, the attention that a patch receives from all patches is used. Deviations from the released
    code: components are exact, where the code's are a random approximation; a patch takes the place of the CLS token,
    which the code keeps; tokens stay in raster order; the tiles of an image compete, unless budget_per is "tile", where
    the code treats each as an image.
    """

    record: ClassVar[Record] = Record(
        keeps="in each group of similar tokens, the most attended ones that do not resemble a better one",
        source="released code: need_token_num / 32 times the mean similarity",
        published={"features": "tower", "similar": 1.0},
        waits=20,  # tokens of all groups suppress others in turn
        measured=("layer=-2",),
        best_with_cls=True,
    )

    compares: ClassVar[str] = "tower_features"

    features: Literal["tower", "projected"] = field(default="tower", kw_only=True)
    similar: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("PruneSID", "similar", self.similar, "a multiple of the mean cosine")

    def select(self, tokens: VisualTokens) -> Selection:
        scores, n_kept = tokens.vision_attention.cls_or_mean(), self.budget(tokens.n_visual)
        if n_kept == tokens.n_visual:
            return Selection.all(n_kept, scores.device, scores)
        features = self.compared(tokens)
        vectors = unit_vectors(features)
        groups = component_of_each(features, max(1, n_kept // PER_GROUP))
        threshold = self.similar * n_kept / EVEN_BUDGET * mean_cosine(vectors)
        order, n_free = suppress(vectors, scores, groups, threshold)
        sizes, free = torch.stack([groups.bincount(minlength=len(n_free)), n_free]).tolist()  # one wait for a GPU
        shares = shares_of_groups(sizes, free, n_kept, CAP * math.ceil(n_kept / CAP_BUDGET))
        chosen = rank_within(-order.float(), groups) < torch.tensor(shares, device=groups.device)[groups]
        return Selection.first(chosen.int().argsort(descending=True, stable=True), n_kept, scores)


def component_of_each(features: Float[Tensor, "visual width"], n_components: int) -> Int[Tensor, " visual"]:
    """Return the principal component, of the first `n_components`, in which each token weighs most.

    Tokens are the variables and channels the observations: sigmoids of the features, each token's with mean 0. Computed
    in float64 from the smaller of the two products, so that memory does not grow with the square of large images.
    """
    centred = features.detach().double().sigmoid()
    centred = centred - centred.mean(1, keepdim=True)
    if len(centred) <= centred.shape[1]:
        loadings = torch.linalg.eigh(centred @ centred.T).eigenvectors  # ascending
    else:
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        # Centring makes at least one eigenvalue zero. What rounding leaves of it must not be a divisor.
        real = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
        loadings = torch.where(real, centred @ vectors / values.clamp(min=torch.finfo(values.dtype).tiny).sqrt(), 0.0)
    return loadings.flip(1)[:, :n_components].abs().argmax(1)


def mean_cosine(vectors: Float[Tensor, "visual width"]) -> Float[Tensor, ""]:
    """Return the mean cosine of two different tokens, given unit vectors."""
    n = len(vectors)
    return (vectors.sum(0).square().sum() - vectors.square().sum()) / max(1, n * (n - 1))


def suppress(
    vectors: Float[Tensor, "visual width"],
    scores: Float[Tensor, " visual"],
    groups: Int[Tensor, " visual"],
    threshold: float | Float[Tensor, ""],
) -> tuple[Int[Tensor, " visual"], Int[Tensor, " groups"]]:
    """Take the tokens of every group by descending score, each suppressing those of its group whose cosine to it
    exceeds the threshold.

    Returns each token's place in the order of all tokens, those taken before those suppressed, and how many of each
    group were taken. All groups are processed at once; ties go to the first token.
    """
    n_visual, n_groups = len(scores), int(groups.max()) + 1
    best_first = scores.argsort(descending=True, stable=True)
    rank = torch.empty_like(best_first).index_copy(0, best_first, torch.arange(n_visual, device=scores.device))
    free, order = torch.ones_like(groups).bool(), rank + n_visual
    for step in range(n_visual):
        if step % 8 == 0 and not bool(free.any()):  # further steps change nothing, and asking waits for a GPU
            break
        first = rank.new_full((n_groups + 1,), n_visual)  # the last is for tokens that are not free
        first = first.scatter_reduce(0, groups.where(free, n_groups), rank.where(free, n_visual), "amin")[:n_groups]
        taken = best_first[first.clamp(max=n_visual - 1)]
        at = first[groups]
        order = order.where(~free | (rank != at), rank)
        alike = (vectors * vectors[taken[groups]]).sum(1) > threshold
        free &= ~(alike & (at < n_visual)) & (rank != at)
    taken = (order < n_visual).long()
    return order, groups.new_zeros(n_groups).index_add(0, groups, taken)


def shares_of_groups(sizes: list[int], n_free: list[int], n_kept: int, cap: int) -> list[int]:
    """Return how many tokens each group keeps, `n_kept` in all, given the groups' `sizes`.

    Every non-empty group keeps one, and the rest is shared in proportion to `n_free`, the numbers not suppressed, with
    cumulative sums rounded. No group keeps more than `cap` or its `n_free`, unless all together would then keep too
    few: these limits grow by one for all groups until there is room for more than the budget. What the limits leave
    over goes to the groups with the largest `n_free`.
    """
    least = [min(1, size) for size in sizes]
    most = [min(cap, size, free) for size, free in zip(sizes, n_free, strict=True)]
    while sum(most) <= n_kept < sum(sizes):
        most = [min(limit + 1, size) for limit, size in zip(most, sizes, strict=True)]
    rest, total = max(0, n_kept - sum(least)), sum(n_free)
    ends = [round(sum(n_free[: i + 1]) * rest / total) for i in range(len(n_free))]
    added = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    shares = [min(low + more, high) for low, more, high in zip(least, added, most, strict=True)]
    for i in sorted(range(len(n_free)), key=lambda i: -n_free[i]):
        shares[i] += min(most[i] - shares[i], n_kept - sum(shares))
    return shares

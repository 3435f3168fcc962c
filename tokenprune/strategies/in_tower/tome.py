"""ToMe, token merging (https://arxiv.org/abs/2210.09461)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tokenprune.checks import check_choice
from tokenprune.selection import Merge, Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, TowerStrategy
from tokenprune.tokens import TowerTokens, VisualTokens
from tokenprune.tokens.attention import BLOCK_ELEMENTS


@register_strategy("tome")
@dataclass(frozen=True)
class ToMe(TowerStrategy):
    """Merges similar patches inside the vision tower, after every layer: bipartite soft matching. The language model
    gets the merged ones.

    Similarity is the cosine of keys, averaged over heads. Every second token looks for the most similar of the others;
    the most similar pairs are merged into the mean of all patches that they stand for. A token that stands for k
    patches counts k times in the attention of later layers (proportional attention). A CLS token stays.

    schedule: "constant" merges the same number after each layer, "decreasing" from twice as many down to none after the
        last. The numbers follow from the budget, which is exact.

    Deviations: tokens are merged after a layer, where the paper merges between its attention and its MLP; the remaining
    tokens stay in raster order, where the code puts those without a partner first; where merging half of the tokens
    after each layer is too little for the budget, the last layers match several times. Where several patches form one
    visual token, tokens are compared by the keys of all of them, and merged patch by patch. Keys are as the attention
    uses them, after rotary embedding if the tower has it. Each tile of an image, and each frame of a
    video, gets its share of the budget in the tower, rounded up; the excess is merged after the tower, by features.
    """

    record: ClassVar[Record] = Record(
        keeps="what remains when similar tokens are merged after every layer that attends to the whole image",
        source="paper: a constant r",
        published={"schedule": "constant"},
        waits=(3, 2),
    )

    schedule: Literal["constant", "decreasing"] = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("ToMe", "schedule", self.schedule, ("constant", "decreasing"))

    def select_in_tower(self, tokens: TowerTokens) -> Selection:
        n_left = tokens.n_left
        target = self.tower_budget(tokens.n_visual, tokens.n_image)
        goal = n_left - n_merged(n_left - target, tokens.n_later_layers, self.schedule)
        if goal == n_left:
            return Selection.all(n_left, tokens.left.device)
        kept, merge = merged_down(tokens.keys, tokens.sizes, goal, tokens.attention.n_prefix)
        return Selection(kept, n_left, None, merge, trusted=True)

    def select(self, tokens: VisualTokens) -> Selection:
        before, n_kept = tokens.kept_in_tower, self.budget(tokens.n_visual)
        if len(before.kept) <= n_kept:
            return Selection(before.kept, tokens.n_visual)
        features = tokens.features[before.kept].float()  # of several tiles
        kept, merge = merged_down(features, before.sizes, n_kept, 0)
        places = torch.arange(n_kept, device=kept.device)
        return Selection(before.kept[kept], tokens.n_visual, None, merge.in_image(before.kept, places))


def merged_down(
    keys: Float[Tensor, "tokens width"], sizes: Float[Tensor, " tokens"], goal: int, n_prefix: int
) -> tuple[Int[Tensor, " left"], Merge]:
    """Merge tokens that stand for `sizes` patches each until `goal` of them, fewer than there are, are left. Return
    these and the merge."""
    kept = groups = torch.arange(len(keys), device=keys.device)
    totals = sizes
    while True:
        still, places = matched(keys, len(kept) - goal, n_prefix)
        kept, groups = kept[still], places[groups]
        if len(kept) == goal:
            return kept, merge_groups(sizes, groups, goal)
        keys, totals = means(keys, totals, places, len(still))


def n_merged(excess: int, n_later_layers: int, schedule: str) -> int:
    """Return how many of `excess` tokens to merge now if `n_later_layers` later layers merge the others."""
    if excess <= 0:
        return 0
    if schedule == "constant" or n_later_layers == 0:
        return -(-excess // (n_later_layers + 1))
    return min(excess, round(2 * excess / (n_later_layers + 1)))  # the largest of the parts 1, 2, ...


def matched(
    keys: Float[Tensor, "tokens width"], count: int, n_prefix: int
) -> tuple[Int[Tensor, " left"], Int[Tensor, " tokens"]]:
    """Match every second token, counted from the `n_prefix` tokens before the patches, with the most similar of the
    others. Return the tokens left after merging the `count` most similar pairs (at most all), and, for every token, the
    index among them of the one it becomes part of."""
    unit, own = normalize(keys, dim=-1), torch.arange(len(keys), device=keys.device)
    sources, others = slice(n_prefix % 2, None, 2), slice(1 - n_prefix % 2, None, 2)
    blocks = unit[sources].split(max(1, BLOCK_ELEMENTS // max(1, len(unit[others]))))
    matches = [(block @ unit[others].T).max(1) for block in blocks]
    similarity, best = (torch.cat(part) for part in zip(*matches, strict=True))
    pairs = similarity.argsort(descending=True, stable=True)[:count]
    merged, targets = own[sources][pairs], own[others][best[pairs]]
    gone = torch.zeros_like(own).index_fill(0, merged, 1)
    still = gone.argsort(stable=True)[: len(own) - len(merged)]  # without waiting for their number
    places = own - gone.cumsum(0)
    return still, places.index_copy(0, merged, places[targets])


def means(
    keys: Float[Tensor, "tokens width"], sizes: Float[Tensor, " tokens"], places: Int[Tensor, " tokens"], n_left: int
) -> tuple[Float[Tensor, "left width"], Float[Tensor, " left"]]:
    """Return the means of the tokens merged into one, each weighted by the number of patches it stands for, and how
    many patches each mean stands for."""
    totals = sums_of(sizes, places, n_left)
    return sums_of(keys * sizes[:, None], places, n_left) / totals[:, None], totals


def merge_groups(sizes: Float[Tensor, " tokens"], groups: Int[Tensor, " tokens"], n_left: int) -> Merge:
    """Return the merge of every token into the one of its group, with the weights of `means`."""
    totals = sums_of(sizes, groups, n_left)[groups]
    sources = (totals > sizes).nonzero()[:, 0]
    return Merge(groups[sources], sources, sizes[sources] / totals[sources])


def sums_of(
    values: Float[Tensor, "tokens ..."], groups: Int[Tensor, " tokens"], n_groups: int
) -> Float[Tensor, "groups ..."]:
    """Return the sums of each group's values."""
    return values.new_zeros(n_groups, *values.shape[1:]).index_add(0, groups, values)

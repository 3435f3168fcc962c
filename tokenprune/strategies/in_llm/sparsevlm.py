"""SparseVLM (https://arxiv.org/abs/2410.04417)."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from tokenprune.checks import check_no_count, check_no_effect, check_share
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.recycling import recycle_by_cluster
from tokenprune.strategy import MergingStrategy, Record, ScoreStrategy, Stage, StagedStrategy
from tokenprune.strategy.stage import layers_at
from tokenprune.tokens import FirstLayerInputs, StageTokens

#: The depths at which the released code prunes: after layers 2, 6 and 15 of 32.
DEPTHS = (3 / 32, 7 / 32, 16 / 32)
#: How many of 576 tokens are left after each stage, merged ones included: the released schedules for 64, 96, 128 and
#: 192 tokens, between none and all.
SCHEDULES = {
    0: (0, 0, 0),
    64: (82, 32, 18),
    96: (249, 55, 27),
    128: (312, 117, 39),
    192: (309, 204, 113),
    576: (576, 576, 576),
}


@register_strategy("sparsevlm")
@dataclass(frozen=True)
class SparseVLM(StagedStrategy, ScoreStrategy, MergingStrategy):
    """Prunes in three stages in the first half of the decoder layers, by the attention of the text tokens that relate
    to the image (the raters). The best dropped tokens are merged into a few cluster centres.

    keep_ratio: chooses the schedule. 1/3, 2/9, 1/6 and 1/9 are the released ones for 192, 128, 96 and 64 of 576 tokens:
        1/9 leaves 82, 32 and 18 in the three stages. Between them, shares are interpolated. It is the average over 32
        layers as the authors count it, where the three layers whose attention ranks count as pruned already; the
        average that the layers see is higher: 0.143 for 1/9, and 0.359 for the default, 1/3. Merged tokens count. A
        count `keep` is rejected.
    recycle: the share of the dropped tokens, those with the highest scores, that are merged; 0 merges none.
    clusters: the number of tokens they are merged into, as a share of their own number.
    cells: rank within cells of the grid, see `ScoreStrategy`. The paper has no cells.

    Stages are at 3/32, 7/32 and 16/32 of the depth, as in the released code's 32 layers; of stages that coincide in a
    shallow model, the last is left.

    Follows the released code where the paper differs: it derives the number of dropped tokens from the rank of the
    attention matrix, and writes the sum of a cluster's tokens, not their mean. Deviations: a merged token is at the
    place and position ID of its cluster's centre, where the code puts all of them after the others; centres are chosen
    without the code's random noise, by densities that do not underflow; all tokens keep their position IDs, which the
    code renumbers.
    """

    record: ClassVar[Record] = Record(
        keeps="the tokens that the relevant text tokens attend to, in three stages; merges some of the rest",
        source="released code: the best 30 % in a tenth as many clusters",
        published={"recycle": 0.3, "clusters": 0.1, "keep_ratio": 192 / 576},
        stages=([3, 6, 14], [3, 7, 16], [3, 8, 18]),
        waits=(5, 4),
        claimed="51.8",
    )

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})
    all_enter: ClassVar[bool] = True
    default_keep_ratio: ClassVar[float] = 192 / 576

    recycle: float = 0.3
    clusters: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_no_count("SparseVLM", self.keep)
        check_share("SparseVLM", "recycle", self.recycle)
        check_share("SparseVLM", "clusters", self.clusters)
        if not self.recycle:
            check_no_effect(self, "with recycle=0", "clusters", "attention_bias")

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        assert self.keep_ratio is not None
        layers = [layer for depth in DEPTHS for layer in layers_at([depth], n_layers)]
        return tuple(Stage(*pair) for pair in dict(zip(layers, shares(self.keep_ratio), strict=False)).items())

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        attention, budget = tokens.attention, stage.budget(tokens.n_visual)
        scores = attention.from_rows(attention.text[raters(tokens.entered)])
        order = self.ranked(scores, budget, tokens)
        if not self.recycle:
            return Selection.first(order, budget, scores)
        return recycle_by_cluster(scores, order, tokens.features, budget, self.recycle, self.clusters)


def shares(keep_ratio: float) -> list[float]:
    """Return the share of all tokens left after each stage, interpolated between the two nearest schedules."""
    n_tokens, schedules = zip(*SCHEDULES.items(), strict=True)
    i = bisect_left(n_tokens, keep_ratio * 576)
    weight = (keep_ratio * 576 - n_tokens[i - 1]) / (n_tokens[i] - n_tokens[i - 1])
    return [
        ((1 - weight) * few + weight * many) / 576 for few, many in zip(schedules[i - 1], schedules[i], strict=True)
    ]


def raters(entered: FirstLayerInputs) -> Bool[Tensor, " text"]:
    """Mark the text tokens that are more similar to the visual tokens than the average text token.

    Similarity is the softmax over the text of a visual token's products with it, averaged over visual tokens.
    """
    relevance = (entered.visual.float() @ entered.text.float().T).softmax(1).mean(0)
    return (relevance >= relevance.mean()) | (relevance == relevance.max())

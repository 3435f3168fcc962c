"""SparseVLM (https://arxiv.org/abs/2410.04417)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from tokenprune.checks import check_no_count, check_no_effect, check_share
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategies.shared.recycling import recycle_by_cluster
from tokenprune.strategy import MergingStrategy, RankedStrategy, Stage, TextGuided
from tokenprune.strategy.schedule import geometric_stages, layers_at
from tokenprune.tokens import FirstLayerInputs, StageTokens

#: The depths at which the released code prunes: after layers 2, 6 and 15 of 32.
DEPTHS = (3 / 32, 7 / 32, 16 / 32)


@register_strategy("sparsevlm")
@dataclass(frozen=True)
class SparseVLM(TextGuided, RankedStrategy, MergingStrategy):
    """Prunes in three stages in the first half of the decoder layers, by the attention of the text tokens that relate
    to the image (the raters). The best dropped tokens are merged into a few cluster centres.

    keep_ratio: the average over the layers; every stage keeps the same share of the remaining tokens. Merged tokens
        count. A count `keep` is rejected.
    recycle: the share of the dropped tokens, those with the highest scores, that are merged; 0 merges none.
    clusters: the number of tokens they are merged into, as a share of their own number.
    cells: rank within cells of the grid, see `RankedStrategy`. The paper has no cells.

    Stages are at 3/32, 7/32 and 16/32 of the depth, as in the released code's 32 layers; stages that coincide in a
    shallow model are one.

    Deviations: the paper derives the number of dropped tokens from the rank of the attention matrix, and its released
    code has tables for four budgets that do not count merged tokens; here the budget is exact. A cluster becomes the
    mean of its tokens as in the released code (the paper writes their sum), at the place and position ID of its centre.
    Centres are chosen by the density of a token's five nearest others, where the code takes as many neighbours as it
    makes clusters, the token itself included, and adds random noise. Raters are chosen from the text after the image.
    Other tokens keep their position IDs too, which the code renumbers.
    """

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
        return geometric_stages("SparseVLM", layers_at(DEPTHS, n_layers), n_layers, self.keep_ratio)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        attention, budget = tokens.attention, stage.budget(tokens.n_visual)
        scores = attention.from_rows(attention.text[raters(tokens.entered)])
        order = self.ranked(scores, budget, tokens)
        if not self.recycle:
            return Selection.first(order, budget, scores)
        return recycle_by_cluster(scores, order, tokens.features, budget, self.recycle, self.clusters)


def raters(entered: FirstLayerInputs) -> Bool[Tensor, " text"]:
    """Mark the text tokens that are more similar to the visual tokens than the average text token.

    Similarity is the softmax over the text of a visual token's products with it, averaged over visual tokens.
    """
    relevance = (entered.visual.float() @ entered.text.float().T).softmax(1).mean(0)
    return (relevance >= relevance.mean()) | (relevance == relevance.max())

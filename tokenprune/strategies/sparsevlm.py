"""SparseVLM (https://arxiv.org/abs/2410.04417)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategies._parts.density import aggregated
from tokenprune.strategies._parts.schedule import geometric_stages, spread
from tokenprune.strategies._parts.text_guided import TextGuided, check_share
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Stage
from tokenprune.tokens import Entered, StageTokens

#: Where the released code prunes: behind layers 2, 6 and 15 of 32.
DEPTHS = (3 / 32, 7 / 32, 16 / 32)


@register_strategy("sparsevlm")
@dataclass(frozen=True)
class SparseVLM(TextGuided):
    """Prunes in three stages in the first half of the decoder layers, by what those text tokens attend to that have to
    do with the image (the raters). Some of what is dropped lives on, merged into a few tokens.

    keep_ratio: the average over the layers; each stage leaves the same share of what is left before it, solved for that
        average. Merged tokens count. A count `keep` has no average: use a ratio.
    recycle: the share of the dropped tokens, those with the highest scores, that are merged; 0 merges none.
    clusters: how many tokens they are merged into, as a share of their number.

    Stages lie at 3/32, 7/32 and 16/32 of the depth, as in the released code's 32 layers; those that fall together in a
    shallow model are one.

    Deviations: the paper drops as many tokens as the attention matrix lacks in rank, and its released code has tables
    for four budgets that do not count merged tokens; here the budget is exact. A cluster is merged into the mean of its
    tokens as in the released code (the paper writes their sum), at the place and position ID of its centre. Raters are
    chosen among the text after the image.
    """

    recycle: float = 0.3
    clusters: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None:
            raise SettingError("SparseVLM: keep is a count, and its budget is an average over layers. Use keep_ratio.")
        check_share("SparseVLM", "recycle", self.recycle)
        check_share("SparseVLM", "clusters", self.clusters)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        assert self.keep_ratio is not None
        return geometric_stages("SparseVLM", spread(DEPTHS, n_layers), n_layers, self.keep_ratio)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        attention, budget = tokens.attention, stage.budget(tokens.n_visual)
        scores = attention.from_rows(attention.text[raters(tokens.entered)])
        if not self.recycle:
            return Selection.best(scores, budget)
        return aggregated(scores, tokens.features, budget, self.recycle, self.clusters)


def raters(entered: Entered) -> Bool[Tensor, " text"]:
    """The text tokens that visual tokens are like, more than the mean of the text: each visual token's similarities to
    the text are a softmax, averaged over visual tokens."""
    relevance = (entered.visual.float() @ entered.text.float().T).softmax(1).mean(0)
    return (relevance >= relevance.mean()) | (relevance == relevance.max())

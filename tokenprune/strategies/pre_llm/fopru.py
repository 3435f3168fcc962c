"""FoPru: Focal Pruning (https://arxiv.org/abs/2411.14164)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.checks import check_choice
from tokenprune.errors import SettingError
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import AttentionStrategy, Record, ScoreStrategy
from tokenprune.tokens import VisualTokens
from tokenprune.tokens.attention import HeadReduction


@register_strategy("fopru")
@dataclass(frozen=True)
class FoPru(AttentionStrategy, ScoreStrategy):
    """Keeps the visual tokens that the vision encoder attends to most, in their original order.

    mode: "rank" keeps the best tokens; "row" keeps whole rows of the grid, best mean first. The budget is exact in
        both, so the last row that "row" reaches is trimmed to its best tokens.
    score: "column" is the attention that a patch receives from all patches, "cls" the attention that the CLS token pays
        to it.
    layer: an encoder layer, counted like a Python index; None is the one whose output the projector gets.
    heads: how the attention maps of the heads are reduced before they are summed.
    cells: rank within cells of the grid, see `ScoreStrategy`; only for "rank". The paper has no cells.
    mass, least: keep what each image needs, see `ScoreStrategy`. The paper has a fixed budget.

    The paper's abstract gives the three stages (significance, pruning by rank or row, reordering). A third party's
    public reproduction, which averages over heads, agrees with "rank" and "row" exactly where the budget is a whole
    number of tokens and rows. The authors' own code, and so their layer, is not public, hence the settings.
    """

    record: ClassVar[Record] = Record(
        keeps="the tokens, or whole rows of the grid, that the vision tower attends to most",
        source="a public reproduction",
        published={"mode": "rank", "score": "column", "heads": "mean"},
        waits=(2, 1),
        measured=("mode=rank,layer=-2", "mode=rank", "mode=row", "score=cls,layer=-2,cells=auto"),
    )

    mode: Literal["rank", "row"] = "rank"
    score: Literal["column", "cls"] = "column"  # pyright: ignore[reportIncompatibleMethodOverride]  a setting here
    heads: HeadReduction = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("FoPru", "mode", self.mode, ("rank", "row"))
        check_choice("FoPru", "score", self.score, ("column", "cls"))
        check_choice("FoPru", "heads", self.heads, ("mean", "max"))
        if self.mode == "row" and self.cells is not None:
            raise SettingError('FoPru: mode="row" keeps whole rows, which cells would cut. Write mode="rank".')

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The attention, and for score="cls" a tower with a CLS token."""
        return frozenset({"vision_attention", "cls"} if self.score == "cls" else {"vision_attention"})

    @property
    def reads_grid(self) -> bool:
        return self.mode == "row" or self.cells is not None

    def select(self, tokens: VisualTokens) -> Selection:
        attention = tokens.vision_attention
        scores = attention.cls_row(self.heads) if self.score == "cls" else attention.received(self.heads)
        n_kept = self.n_to_keep(scores)
        order = self.ranked(scores, n_kept, tokens)
        if self.mode == "row":
            order = order_by_row(scores, order, tokens.rows, tokens.layout.n_rows)
        return Selection.first(order, n_kept, scores)


def order_by_row(
    scores: Float[Tensor, " visual"], order: Int[Tensor, " visual"], rows: Int[Tensor, " visual"], n_rows: int
) -> Int[Tensor, " visual"]:
    """Sort `order` by the rank of each token's row; within a row, the order stays.

    The `n_rows` of all frames compete by their mean scores, because consecutive rasters may differ in width.
    """
    means = scores.new_zeros(n_rows).scatter_reduce(0, rows, scores, "mean", include_self=False)
    row_rank = means.argsort(descending=True, stable=True).argsort()
    return order[torch.argsort(row_rank[rows[order]], stable=True)]

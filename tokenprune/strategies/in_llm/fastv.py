"""FastV (https://arxiv.org/abs/2403.06764)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from tokenprune.checks import check_choice
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import OneStage, Record, TextScoreStrategy
from tokenprune.tokens import StageTokens


@register_strategy("fastv")
@dataclass(frozen=True)
class FastV(OneStage, TextScoreStrategy):
    """Keeps, from decoder layer K = `layer` on, the visual tokens that layer K - 1 attends to most. The paper's
    filtering ratio R is 1 - keep_ratio.

    queries: the tokens whose attention counts, averaged over heads. "last" is the last token of the prompt, as in the
        released code; "all" averages over all tokens, as in the paper's text.
    cells: rank within cells of the grid, see `RankedStrategy`. The paper has no cells.

    Deviations from the released code with a KV cache: kept tokens and the text keep their position IDs while decoding
    too, as in its code without one; layers from K on cache only the tokens they saw.
    """

    record: ClassVar[Record] = Record(
        keeps="from decoder layer 2 on, the tokens that the last prompt token attends to most",
        source="paper: K; released code: the last token",
        published={"layer": 2, "queries": "last"},
        stages=([2], [2], [2]),
        waits=(2, 1),
        claimed="47.8",
    )

    queries: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("FastV", "queries", self.queries, ("last", "all"))

    def score_at(self, tokens: StageTokens) -> Float[Tensor, " left"]:
        return tokens.attention.from_last() if self.queries == "last" else tokens.attention.from_all()

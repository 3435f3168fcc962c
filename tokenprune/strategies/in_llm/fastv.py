"""FastV (https://arxiv.org/abs/2403.06764)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tokenprune.checks import check_choice
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, ScoreStrategy, Stage, StagedStrategy
from tokenprune.strategy.stage import check_one_stage, one_stage
from tokenprune.tokens import StageTokens


@register_strategy("fastv")
@dataclass(frozen=True)
class FastV(StagedStrategy, ScoreStrategy):
    """Keeps, from decoder layer K = `layer` on, the visual tokens that layer K - 1 attends to most. The paper's
    filtering ratio R is 1 - keep_ratio.

    keep_ratio, keep, layer, average: see `tokenprune.strategy.stage.one_stage`.
    queries: the tokens whose attention counts, averaged over heads. "last" is the last token of the prompt, as in the
        released code; "all" averages over all tokens, as in the paper's text.
    cells: rank within cells of the grid, see `ScoreStrategy`. The paper has no cells.

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

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})
    all_enter: ClassVar[bool] = True

    layer: int = 2
    average: bool = False
    queries: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_stage(self)
        check_choice("FastV", "queries", self.queries, ("last", "all"))

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        return one_stage(self, n_layers)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        scores = tokens.attention.from_last() if self.queries == "last" else tokens.attention.from_all()
        return self.best(scores, stage.budget(tokens.n_visual), tokens)

"""PyramidDrop (https://arxiv.org/abs/2410.17247)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokenprune.checks import check_count, check_no_count
from tokenprune.selection import Selection
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, ScoreStrategy, Stage, StagedStrategy
from tokenprune.strategy.stage import common_share, geometric_stages, layers_at, looking_ahead
from tokenprune.tokens import StageTokens

#: The smallest share that a stage at the paper's layers may keep; the paper uses 0.5.
LEAST_SHARE = 0.4


@register_strategy("pyramiddrop")
@dataclass(frozen=True)
class PyramidDrop(StagedStrategy, ScoreStrategy):
    """Prunes on entry to the second, third and last quarter of the decoder layers. Each stage keeps the same share
    lambda of the remaining tokens: those that the last token of the prompt attends to most.

    keep_ratio: the average over the layers, which determines lambda: (1 + l + l^2 + l^3) / 4 for four equal quarters,
        so the paper's lambda of 0.5 is the default, 15/32. A count `keep` is rejected.
    first: the layer of the first stage; the other stages divide the layers after it evenly. None is a quarter of the
        layers, or fewer if lambda would otherwise be below 0.4, because layers that see every token use up the average.
    cells: rank within cells of the grid, see `ScoreStrategy`. The paper has no cells.

    As in the released code, the attention is that of the layer about to be entered. Deviations: the code renumbers
    position IDs after each stage; here they are kept. Quarters that coincide in a shallow model are one stage.
    """

    record: ClassVar[Record] = Record(
        keeps="the tokens that the last prompt token attends to most, in three stages through the decoder",
        published={"keep_ratio": (1 + 1 / 2 + 1 / 4 + 1 / 8) / 4},
        stages=([7, 14, 21], [8, 16, 24], [9, 18, 27]),
        waits=(4, 3),
        claimed="45.9 to 50.6",
    )

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})
    all_enter: ClassVar[bool] = True
    default_keep_ratio: ClassVar[float] = 15 / 32

    first: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_no_count("PyramidDrop", self.keep)
        if self.first is not None:
            check_count("PyramidDrop", "first", self.first)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        assert self.keep_ratio is not None
        return looking_ahead(geometric_stages("PyramidDrop", self.layers(n_layers), n_layers, self.keep_ratio))

    def layers(self, n_layers: int) -> list[int]:
        """Return the first layer of each stage."""
        assert self.keep_ratio is not None
        if self.first is not None and self.first >= n_layers:
            return [self.first]
        first = self.first or max(n_layers // 4, 1)
        while True:
            rest = (1 - first / n_layers) / 3
            layers = layers_at([first / n_layers + rest * i for i in range(3)], n_layers)
            if self.first is not None or first == 1:
                return layers
            fits = first < self.keep_ratio * n_layers
            if fits and common_share("PyramidDrop", layers, n_layers, self.keep_ratio) >= LEAST_SHARE:
                return layers
            first -= 1

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        return self.best(tokens.attention.from_last(), stage.budget(tokens.n_visual), tokens)

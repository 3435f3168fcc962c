"""Pruning by cumulative attention: as few tokens as carry a share of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokenprune.checks import check_count, check_mass
from tokenprune.selection import Selection, n_reaching
from tokenprune.strategies.registry import register_strategy
from tokenprune.strategy import Record, ScoreStrategy, Stage, StagedStrategy
from tokenprune.tokens import StageTokens


@register_strategy("attentionmass")
@dataclass(frozen=True)
class AttentionMass(StagedStrategy, ScoreStrategy):
    """Keeps, in stages throughout the language model, the fewest visual tokens that together receive the share `mass`
    of the text's attention, and never more than the budget. If the text attends to few parts of an image, few tokens
    are kept.

    keep_ratio, keep: the maximum from `layer` on. With keep_ratio=1.0, `mass` alone decides.
    mass: a share in (0, 1]; 1 keeps the whole budget.
    layer: the decoder layer of the first stage, counted from 0.
    every: the number of layers between stages.
    cells: rank within cells of the grid, see `ScoreStrategy`: as many tokens as without them, from more of the image.

    The attention is that of the text after the image in the layer before the stage, averaged over heads and text tokens
    and normalised over the remaining visual tokens. Not from a paper.
    """

    record: ClassVar[Record] = Record(
        keeps="per stage, the fewest tokens that receive 95 % of the text's attention, up to the budget",
        source="our own",
        published={"mass": 0.95, "layer": 2, "every": 4},
        stages=([2, 6, 10, 14, 18, 22, 26], [2, 6, 10, 14, 18, 22, 26, 30], [2, 6, 10, 14, 18, 22, 26, 30, 34]),
        waits=(3, 2),
    )

    needs: ClassVar[frozenset[str]] = frozenset({"text_attention"})
    all_enter: ClassVar[bool] = True

    mass: float = 0.95  # pyright: ignore[reportIncompatibleVariableOverride]  a setting here
    layer: int = 2
    every: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mass("AttentionMass", self.mass)  # None, which other strategies take, included
        check_count("AttentionMass", "layer", self.layer)
        check_count("AttentionMass", "every", self.every)

    def stages(self, n_layers: int) -> tuple[Stage, ...]:
        at_most = self.mass < 1
        layers = range(self.layer, max(n_layers, self.layer + 1), self.every)
        return tuple(Stage(layer, self.keep_ratio, self.keep, at_most) for layer in layers)

    def select_at(self, stage: Stage, tokens: StageTokens) -> Selection:
        scores = tokens.attention.from_text()
        n_kept = min(n_reaching(scores, self.mass), stage.budget(tokens.n_visual))
        return self.best(scores, n_kept, tokens)

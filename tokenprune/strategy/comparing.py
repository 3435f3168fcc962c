"""Strategies that read the vision tower's attention and compare visual tokens by their features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from tokenprune.checks import check_choice
from tokenprune.strategy.attention import AttentionStrategy
from tokenprune.tokens.visual import VisualTokens


@dataclass(frozen=True)
class ComparingStrategy(AttentionStrategy):
    """Compares visual tokens by `compared(tokens)`.

    features: "tower", as in the released code, compares what the vision tower gives, the statistic `tower_statistic`.
        A model offers it where its projector maps every token by itself; elsewhere tokens have no features before the
        projector, and those after it are compared. "projected" compares those after it in every model.
    """

    tower_statistic: ClassVar[str] = "tower_features"

    features: Literal["tower", "projected"] = field(default="tower", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(type(self).__name__, "features", self.features, ("tower", "projected"))

    @property
    def needs(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The attention and, if it compares them, the tower's features."""
        return AttentionStrategy.needs | ({self.tower_statistic} if self.features == "tower" else set())

    @property
    def required_statistics(self) -> frozenset[str]:
        return super().required_statistics - {self.tower_statistic}

    def compared(self, tokens: VisualTokens) -> Float[Tensor, "visual width"]:
        """The features to compare."""
        offered = self.tower_statistic in self.needs & tokens.statistics.keys()
        return tokens.mapped(self.tower_statistic) if offered else tokens.features

"""Strategies that read the vision tower's attention, and may compare features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from tokenprune.checks import check_choice, check_layer
from tokenprune.strategy.base import Strategy
from tokenprune.tokens.visual import VisualTokens


@dataclass(frozen=True)
class AttentionStrategy(Strategy):
    """Reads the attention of one encoder layer of the vision tower, `tokens.vision_attention`.

    layer: an encoder layer, counted like a Python index; None is the one whose output the projector gets.
    features: a setting of subclasses that define it and `compares`, a statistic. "tower" compares that, features of the
        vision tower. A model offers them where its projector maps every token by itself; elsewhere tokens have no
        features before the projector, and those after it are compared. "projected" compares those in every model.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"vision_attention"})
    compares: ClassVar[str] = ""

    layer: int | None = field(default=None, kw_only=True)
    features: Literal["tower", "projected"] = field(default="projected", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_layer(type(self).__name__, self.layer, "an encoder layer", -2)
        if self.compares:
            check_choice(type(self).__name__, "features", self.features, ("tower", "projected"))
            if self.features == "tower":
                object.__setattr__(self, "needs", self.needs | {self.compares})

    @property
    def attention_layer(self) -> int | None:
        return self.layer

    @property
    def required_statistics(self) -> frozenset[str]:
        return super().required_statistics - {self.compares}

    def compared(self, tokens: VisualTokens) -> Float[Tensor, "visual width"]:
        """The features to compare."""
        offered = self.compares in self.needs & tokens.statistics.keys()
        return tokens.mapped(self.compares) if offered else tokens.features

"""Strategies that read the vision tower's attention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tokenprune.checks import check_layer
from tokenprune.strategy.base import Strategy


@dataclass(frozen=True)
class AttentionStrategy(Strategy):
    """Reads the attention of one encoder layer of the vision tower, `tokens.vision_attention`.

    layer: an encoder layer, counted like a Python index; None is the one whose output the projector gets.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"vision_attention"})

    layer: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_layer(type(self).__name__, self.layer, "an encoder layer", -2)

    @property
    def attention_layer(self) -> int | None:
        return self.layer

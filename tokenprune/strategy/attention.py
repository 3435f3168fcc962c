"""Strategies that read the vision tower's attention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tokenprune.errors import SettingError
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
        if self.layer is not None and (not isinstance(self.layer, int) or isinstance(self.layer, bool)):
            raise SettingError(
                f"{type(self).__name__}: layer={self.layer!r} is not an encoder layer; write layer=-2, or None."
            )

    @property
    def attention_layer(self) -> int | None:
        return self.layer

"""Decoder layers whose forward is covered: those that see fewer tokens than entered, and those that are not executed.

Not their module is covered, and nothing is hooked to it: weights, names, hooks and `state_dict` stay as they are, and a
decode step, which calls every layer for a single token, pays less than it would for hooks.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from tokenprune.engine.overrides import StandIn
from tokenprune.engine.stages.plan import StageHooks


class LayerForward(StandIn):
    """Stands in for a decoder layer's forward. What covers it, as accelerate's hooks do, goes on calling it when it has
    been removed; then it does nothing."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer, "forward")
        self._removed = False

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.original)

    def remove(self) -> None:
        self._removed = True
        super().remove()


class SkippedLayer(LayerForward):
    """What enters the layer leaves it, and nothing is written into a cache."""

    def __call__(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.original(hidden, *args, **kwargs) if self._removed else hidden


class StagedLayer(LayerForward):
    """The layer gets its arguments cut to its stage."""

    def __init__(self, layer: nn.Module, stages: StageHooks, number: int) -> None:
        super().__init__(layer)
        self.stages, self._number = stages, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        asks = self.stages.cutting or kwargs.get("attention_mask") is not None
        if asks and not self._removed:
            args, kwargs = self.stages.before_layer(self._number, args, kwargs) or (args, kwargs)
        return self.original(*args, **kwargs)

"""Overrides of the language model's methods, whose arguments change between decoder layers.

The layers' forward is overridden rather than hooked, because this costs less in a decode step, which calls every layer
for a single token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from tokenprune.engine.overrides.override import ForwardOverride, MethodOverride

if TYPE_CHECKING:
    from tokenprune.engine.stages.pruning import StagePruning


class StagedLayer(ForwardOverride):
    """A decoder layer whose arguments are cut to its stage's tokens."""

    def __init__(self, layer: nn.Module, stages: StagePruning, number: int) -> None:
        super().__init__(layer)
        self.stages, self._number = stages, number

    def override(self, *args: Any, **kwargs: Any) -> Any:
        if self.stages.active_forwards or kwargs.get("attention_mask") is not None:
            changed = self.stages.before_layer(self._number, self.original, args, kwargs)
            args, kwargs = changed or (args, kwargs)
        return self.original(*args, **kwargs)


class InnerFeatures(MethodOverride):
    """A method of the language model that adds features to visual tokens between decoder layers: fewer are left after
    an in-LLM stage."""

    def __init__(self, language_model: nn.Module, name: str, stages: StagePruning) -> None:
        super().__init__(language_model, name)
        self.stages = stages

    def override(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*self.stages.inner_arguments(args), **kwargs)

"""Where a strategy prunes inside the language model, checked against the model."""

from __future__ import annotations

from tokenprune.adapters.base import ModelAdapter
from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.strategy import Stage, StagedStrategy


def checked_stages(strategy: StagedStrategy, adapter: ModelAdapter) -> tuple[Stage, ...]:
    """The strategy's stages.

    Raises SettingError unless they ascend through the decoder layers after the first, and UnsupportedError for a model
    with layers whose caches hold a window only.
    """
    n_layers = len(adapter.layers)
    stages = strategy.stages(n_layers)
    if stages and adapter.decoder.layers.sliding:
        raise UnsupportedError(
            f"{type(strategy).__name__} prunes inside the language model, and that of {adapter.description} has "
            f"sliding-window layers, where only pruning before it is supported. Use a strategy without stages."
        )
    layers = [stage.layer for stage in stages]
    if layers != sorted(set(layers)) or not all(0 < layer < n_layers for layer in layers):
        raise SettingError(
            f"{type(strategy).__name__}: stages at layers {layers} do not ascend within 1..{n_layers - 1}, the decoder "
            f"layers of this model after the first."
        )
    return stages

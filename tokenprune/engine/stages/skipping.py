"""Decoder layers that are skipped: they pass their input on, and write nothing into a cache.

Their part of a cache stays empty, so a cache that was filled this way says so in its index, and can only be continued
with the same layers skipped.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import hidden_states_first
from tokenprune.engine.patch import ForwardOverride, Register
from tokenprune.errors import PruningError, SettingError, UnsupportedError
from tokenprune.sequence.masks import INDEXED, POOLED
from tokenprune.strategy import StagedStrategy
from tokenprune.strategy.staged import valid_skips


class LayerSkipping:
    """Skips the `layers` that a strategy names.

    Raises SettingError unless they ascend through the decoder layers, and for layers that must be executed: those whose
    attention stages read, and the first of each kind, which determines the length of a cache. Raises UnsupportedError
    for a model whose layers pass on more than hidden states.
    """

    def __init__(self, strategy: StagedStrategy, adapter: ModelAdapter, read: Collection[int]) -> None:
        self.adapter, self.layers = adapter, valid_skips(strategy, len(adapter.layers))
        name, kinds = type(strategy).__name__, adapter.decoder.layers.kinds
        if list(self.layers) != sorted(set(self.layers)) or not set(self.layers) <= set(range(len(adapter.layers))):
            raise SettingError(
                f"{name}: skipped layers {list(self.layers)} do not ascend within 0..{len(adapter.layers) - 1}, the "
                f"decoder layers of this model."
            )
        if self.layers and {INDEXED, POOLED} & set(kinds):
            raise UnsupportedError(
                f"{name} skips decoder layers, but those of {adapter.description} pass on what their indexer chose, so "
                f"none can be skipped. Use a strategy that skips no layers."
            )
        if self.layers and adapter.only_before is not None:
            raise UnsupportedError(
                f"{name} skips decoder layers, but none of {adapter.description} can be skipped: "
                f"{adapter.only_before}. Use a strategy that skips no layers."
            )
        needed = {kinds.index(kind): "determines the length of the cache" for kind in set(kinds)}
        needed |= dict.fromkeys(read, "provides the attention that the strategy reads")
        for layer in self.layers:
            if layer in needed:
                raise SettingError(
                    f"{name}: decoder layer {layer} {needed[layer]}, so it cannot be skipped. Skip another one."
                )

    def register(self, register: Register) -> None:
        for number in self.layers:
            register(SkippedLayer(self.adapter.layers[number]).install())

    def check_cache(self, cache: Any) -> None:
        """Raise PruningError for a cache that cannot be filled when layers are skipped."""
        if getattr(cache, "offloading", False):
            raise PruningError(
                "an offloaded cache fetches the keys of each layer while the layer before it runs, which a skipped "
                "layer does not. Generate with another cache, or skip no layers."
            )


class SkippedLayer(ForwardOverride):
    """Passes on the layer's input, and writes nothing into a cache."""

    def override(self, *args: Any, **kwargs: Any) -> Any:
        return hidden_states_first(args, kwargs)[0][0]

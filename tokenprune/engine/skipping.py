"""Decoder layers that are not executed: what enters them leaves them, and they write nothing into a cache.

Their part of a cache stays empty, so a cache that was filled this way says so in its ledger, and only goes on with the
same layers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tokenprune.adapters.base import ModelAdapter
from tokenprune.engine.cache import Ledger
from tokenprune.errors import PruningError, SettingError
from tokenprune.strategy import StagedStrategy, Strategy


def checked_skips(strategy: Strategy, adapter: ModelAdapter, read: Collection[int]) -> tuple[int, ...]:
    """The layers that the strategy skips, of which none may be one whose attention is `read`.

    Raises SettingError unless they ascend through the decoder layers, and for layers that must be executed: the first
    of each kind of attention tells how long a cache is.
    """
    skipped = strategy.skipped_layers(len(adapter.layers)) if isinstance(strategy, StagedStrategy) else ()
    kinds = adapter.decoder.layers.kinds
    if list(skipped) != sorted(set(skipped)) or not all(0 <= layer < len(adapter.layers) for layer in skipped):
        raise SettingError(
            f"{type(strategy).__name__}: skipped layers {list(skipped)} do not ascend within "
            f"0..{len(adapter.layers) - 1}, the decoder layers of this model."
        )
    needed = {kinds.index(kind): "tells how long a cache is" for kind in set(kinds)}
    needed |= dict.fromkeys(read, "shows the attention that the strategy reads")
    for layer in skipped:
        if layer in needed:
            raise SettingError(
                f"{type(strategy).__name__}: decoder layer {layer} {needed[layer]}, so it cannot be skipped. Skip "
                f"another one."
            )
    return skipped


def check_cache(cache: Any, ledger: Ledger | None, skipped: tuple[int, ...]) -> None:
    """Raises PruningError for a cache that cannot go on with these layers skipped."""
    if ledger is not None and ledger.skipped != skipped:
        raise PruningError(
            f"this cache was filled with {_written(ledger.skipped)} skipped, and the strategy skips "
            f"{_written(skipped)}. Go on with the strategy that it was made with, or start again from an empty cache."
        )
    if skipped and getattr(cache, "offloading", False):
        raise PruningError(
            "an offloaded cache fetches the keys of each layer while the layer before it runs, which a skipped layer "
            "does not. Generate with another cache, or skip no layers."
        )


def _written(layers: tuple[int, ...]) -> str:
    return f"decoder layers {', '.join(map(str, layers))}" if layers else "no decoder layer"

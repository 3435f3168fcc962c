"""Determines what a call interrupted inside the language model has left in a cache."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.cache.rebuilt import fingerprint_pruned
from tokenprune.errors import PruningError
from tokenprune.sequence.masks import RECURRENT, LayerKinds

if TYPE_CHECKING:
    from tokenprune.adapters.base import ModelAdapter
    from tokenprune.engine.call import Forward


def interrupted_index(forward: Forward, adapter: ModelAdapter, skipped: Collection[int]) -> CacheIndex:
    """The index of the cache of a forward that was interrupted after every layer except those `skipped` was filled.
    Raises PruningError if it was interrupted earlier."""
    index, incoming = forward.index_after(), forward.incoming
    assert index is not None
    lengths = dict.fromkeys(range(len(adapter.layers)), index.columns.shape[1])
    if forward.stages is not None:
        lengths |= forward.stages.lengths(len(adapter.layers))
    for number in skipped:
        lengths.pop(number, None)
    check_filled(incoming.cache, lengths, adapter.decoder.layers)
    fingerprint_pruned(incoming.cache, index, incoming.padding)
    return index


def check_filled(cache: Any, lengths: Mapping[int, int], kinds: LayerKinds) -> None:
    """Raise PruningError unless every layer holds as many slots as `lengths` says. Layers that read another layer's
    keys hold none; what a layer with a state has seen is unknown."""
    for number, length in lengths.items():
        known = number < len(cache.layers) and kinds.kinds[number] not in RECURRENT
        if known and int(_own_length(cache.layers[number], length)) == length:
            continue
        raise PruningError(
            "the call that filled this cache was interrupted between decoder layers: some hold the prompt, others do "
            "not. Start again from an empty cache."
        )


def _own_length(layer: Any, of_others: int) -> int:
    """The length of a cache's layer; `of_others` if it reads other layers' keys."""
    return layer.get_seq_length() if hasattr(layer, "get_seq_length") else of_others

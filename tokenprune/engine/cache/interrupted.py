"""Determines what a call that was interrupted inside the language model has left in a cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenprune.errors import PruningError
from tokenprune.sequence.masks import RECURRENT, LayerKinds


def check_filled(cache: Any, lengths: Mapping[int, int], kinds: LayerKinds) -> None:
    """Raise PruningError unless every layer holds as many slots as `lengths` says. Layers that read the keys of
    another one hold none; what a layer with a state has seen is unknown."""
    for number, length in lengths.items():
        known = number < len(cache.layers) and kinds.kinds[number] not in RECURRENT
        if known and int(_own_length(cache.layers[number], length)) == length:
            continue
        raise PruningError(
            "the call that filled this cache was interrupted between decoder layers: some hold the prompt, others do "
            "not. Start again from an empty cache."
        )


def _own_length(layer: Any, of_others: int) -> int:
    """The length of a cache's layer; that of the others if it reads their keys."""
    return layer.get_seq_length() if hasattr(layer, "get_seq_length") else of_others

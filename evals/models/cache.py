"""The KV cache in a model's output."""

from typing import Any

from torch import Tensor

from tokenprune.engine.call import CACHE_NAMES
from tokenprune.evals.models.tensors import stored_bytes

#: Where a quantised layer of a cache keeps its states; `keys` and `values` are those that are not quantised yet.
QUANTISED = "_quantized_keys", "_quantized_values"


def cache_in(output: Any) -> tuple[str, Any]:
    """Return the name of the cache, in outputs and in arguments, and the cache."""
    name = next(name for name in CACHE_NAMES if name in output)
    return name, output[name]


def cache_bytes(output: Any) -> int:
    """Return the size of the cache tensors in bytes, those of quantised states and their scales included.

    Skipped decoder layers hold none.
    """
    _, cache = cache_in(output)
    layers = [layer for layer in cache.layers if layer.is_initialized]
    return sum(
        layer.keys.nbytes + layer.values.nbytes + sum(_bytes(getattr(layer, name, None)) for name in QUANTISED)
        for layer in layers
    )


def _bytes(state: Any) -> int:
    """The size of quantised states: a tensor that is made of others (quanto), or tensors with what describes them."""
    if isinstance(state, tuple):
        return sum(map(_bytes, state))
    if isinstance(state, dict):
        return sum(map(_bytes, state.values()))
    return stored_bytes(state) if isinstance(state, Tensor) else 0

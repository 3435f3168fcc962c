"""The KV cache in a model's output."""

from typing import Any

from tokenprune.engine.call import CACHE_NAMES


def cache_in(output: Any) -> tuple[str, Any]:
    """Return the name of the cache, in outputs and in arguments, and the cache."""
    name = next(name for name in CACHE_NAMES if name in output)
    return name, output[name]


def cache_bytes(output: Any) -> int:
    """Return the size of the cache tensors in bytes. Skipped decoder layers hold none."""
    _, cache = cache_in(output)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers if layer.is_initialized)

"""The KV cache in a model's output."""

from inspect import signature
from typing import Any

from torch import Tensor
from transformers import DynamicCache

from tokenprune.adapters.conventions import CACHE_NAMES
from tokenprune.adapters.record import record_of
from tokenprune.evals.models.tensors import stored_bytes


def missing_cache(model: Any) -> dict[str, DynamicCache]:
    """Return an empty cache as the argument of a model's forward, as `generate` passes it, if the model would make
    none."""
    if record_of(model.config.model_type).makes_cache:
        return {}
    parameters = signature(type(model).forward).parameters
    name = next(name for name in CACHE_NAMES if name in parameters)
    return {name: DynamicCache(config=model.config.get_text_config(decoder=True))}


def cache_in(output: Any) -> tuple[str, Any]:
    """Return the name of the cache, in outputs and in arguments, and the cache."""
    name = next(name for name in CACHE_NAMES if name in output)
    return name, output[name]


def cache_bytes(output: Any) -> int:
    """Return the size of the cache in bytes: of all tensors that its layers hold, under any name: keys and values,
    quantised ones with their scales, the keys of indexers, and the states of linear attention, state-space layers and
    short convolutions.

    Skipped decoder layers hold none. Qwen3.5's cache of transformers 5.4 has lists instead of layers.
    """
    _, cache = cache_in(output)
    return sum(_bytes(vars(layer)) for layer in getattr(cache, "layers", [cache]))


def _bytes(held: Any) -> int:
    """The size of tensors, including those inside quantised ones (quanto) or in tuples with their metadata."""
    if isinstance(held, (tuple, list)):
        return sum(map(_bytes, held))
    if isinstance(held, dict):
        return sum(map(_bytes, held.values()))
    return stored_bytes(held) if isinstance(held, Tensor) else 0

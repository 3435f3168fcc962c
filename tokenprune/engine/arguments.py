"""Finds the arguments and outputs of a patched model's calls by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from types import MethodType
from typing import Any

from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.wrappers import unwrap_part
from tokenprune.errors import PruningError

#: Names of the cache in arguments and outputs: the first since transformers 5.2x, the second before.
CACHE_NAMES = ("cache", "past_key_values")


def named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a module's call by name, in a new dict."""
    return bind_arguments(unwrap_part(module).forward, args, kwargs) if args else dict(kwargs)


def bind_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, including those that ** collects."""
    method = isinstance(function, MethodType)
    signature = _signature(function.__func__) if method else inspect.signature(function)
    named = dict(signature.bind_partial(*((None, *args) if method else args), **kwargs).arguments)
    if method:
        del named[next(iter(signature.parameters))]
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return named


def hidden_states_first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a layer's call, with hidden states passed by name moved to the first position."""
    if args:
        return args, kwargs
    others = dict(kwargs)
    return (others.pop("hidden_states"),), others


def new_size(kwargs: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many rows and columns a call of the base model brings."""
    new = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
    return new.shape[0], new.shape[1]


def find_cache(*places: Any) -> Any:
    """Return the first cache in the arguments or outputs of a call; None if there is none."""
    for place in places:
        if isinstance(place, dict):
            # dict's own get: an output warns when asked for the old name.
            for name in CACHE_NAMES:
                if (cache := dict.get(place, name)) is not None:
                    return cache
        # Under another name, or in a tuple.
        values = place.values() if isinstance(place, dict) else place if isinstance(place, tuple) else ()
        for value in values:
            if hasattr(value, "get_seq_length") and hasattr(value, "update"):
                return value
    return None


def has_unknown_values(output: Any) -> bool:
    """Whether an output holds anything but tensors and sequences of tensors, such as a cache of an unknown kind."""
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else (output,)
    rows = (value if isinstance(value, (tuple, list)) else (value,) for value in values)
    return any(not (part is None or isinstance(part, Tensor)) for row in rows for part in row)


def check_placeholders(adapter: ModelAdapter, modalities: set[str], kwargs: Mapping[str, Any]) -> None:
    """Raise PruningError if a prompt has placeholder tokens of images that were encoded for it, and their features come
    under a name that the adapter does not know. If none come, the model is its own assistant, to which transformers
    passes no images."""
    if not any(_holds_features(value) for name, value in kwargs.items() if name != "attention_mask"):
        return
    ids = kwargs.get("input_ids")
    for modality in adapter.modalities:
        if modality.name in modalities and ids is not None and bool((ids == modality.token_id).any()):
            raise PruningError(
                f"{type(adapter.model).__name__} encoded {modality.name}s for this prompt and passes them on in a way "
                f"that {type(adapter).__name__} does not know, so nothing would be pruned. Remove the patch, and "
                f"report it with your transformers version."
            )


def unknown_cache(model: nn.Module) -> PruningError:
    """The error for a model that returns the cache of a pruned prompt where it was not found."""
    return PruningError(
        f"{type(model).__name__} returns the cache of a pruned prompt in a way that tokenprune does not know. Pass "
        f"use_cache=False, or report it with your transformers version."
    )


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a class's function; a bound method as the key would keep its model alive."""
    return inspect.signature(function)


def _holds_features(argument: Any) -> bool:
    if isinstance(argument, Tensor):
        return argument.is_floating_point()
    parts = argument.values() if isinstance(argument, Mapping) else argument
    return isinstance(argument, (Mapping, list, tuple)) and any(map(_holds_features, parts))

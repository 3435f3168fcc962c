"""Conventions that all supported transformers models share, over all supported versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tokenprune.errors import PruningError
from tokenprune.sequence.masks import Mask

#: What the cache is called in arguments and outputs: the first from 5.2x on, the second before.
CACHE_NAMES = ("cache", "past_key_values")


def find_cache(*places: Any) -> Any:
    """Return the first cache in the arguments or outputs of a call; None if there is none."""
    # dict's own get: an output warns when it is asked for the old name.
    found = (dict.get(place, name) for place in places if isinstance(place, dict) for name in CACHE_NAMES)
    return next((cache for cache in found if cache is not None), None)


def n_new_columns(kwargs: Mapping[str, Any]) -> int:
    """Return how many columns a call of the base model brings."""
    new = kwargs["input_ids"] if kwargs.get("input_ids") is not None else kwargs["inputs_embeds"]
    return new.shape[1]


def prunable_mask(kwargs: Mapping[str, Any]) -> Mask:
    """Return the attention mask of a call of the base model or of the language model. Raises PruningError for a kind of
    mask that cannot be pruned."""
    mask = kwargs.get("attention_mask")
    patterns = list(mask.values()) if isinstance(mask, Mapping) else [mask]
    odd = next((pattern for pattern in patterns if pattern is not None and not isinstance(pattern, Tensor)), None)
    if odd is not None:
        raise PruningError(
            f"an attention mask of type {type(odd).__name__} cannot be pruned. Load the model with "
            f'attn_implementation="sdpa", or generate without a static cache.'
        )
    return mask


def loss_function(model: Any) -> tuple[str, Callable[..., Any]]:
    """Return the attribute that holds a loss function of this instance only, and the function in use now. It is called
    with logits, labels and whatever else the loss needs."""
    return "_loss_function", model.loss_function


def recomputes_hooks(layer: Any) -> bool:
    """Whether the backward pass runs this layer again with its hooks, as activation checkpointing did until it wrapped
    the layer's `forward` instead of its call."""
    checkpoints = layer.training and getattr(layer, "gradient_checkpointing", False)
    return checkpoints and type(layer).__call__ is not nn.Module.__call__

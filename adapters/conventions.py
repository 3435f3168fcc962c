"""What all supported transformers models have in common, in all supported versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

#: The method of a model through which every use of continuous batching goes: `generate_batch`, and servers.
CONTINUOUS_BATCHING = "init_continuous_batching"


def loss_function(model: Any) -> tuple[str, Callable[..., Any]]:
    """Return the attribute that holds a loss function of this instance only, and the function in use now. It is called
    with logits, labels and whatever else the loss needs."""
    return "_loss_function", model.loss_function


def recomputes(layer: Any) -> bool:
    """Whether the backward pass runs this layer again (activation checkpointing), with the hooks of modules in it."""
    return layer.training and getattr(layer, "gradient_checkpointing", False)


def recomputes_hooks(layer: Any) -> bool:
    """Whether the backward pass runs this layer again with its own hooks, as activation checkpointing did until it
    wrapped the layer's `forward` instead of its call."""
    return recomputes(layer) and type(layer).__call__ is not nn.Module.__call__

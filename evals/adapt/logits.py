"""Logits only where an answer is learnt.

Few of a row's tokens belong to answers. Logits of the others do not change the loss, but with a vocabulary of 150,000
tokens they would take most of a step's memory. So the model's output layer is bypassed, and the loss, which knows the
labels, applies it where something is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from tokenprune.evals.models.overrides import overridden_forward
from tokenprune.sequence.packing import IGNORED_LABEL


def is_learnt(labels: Int[Tensor, "batch n"]) -> Bool[Tensor, "batch n-1"]:
    """Which tokens are followed by one to learn."""
    return labels[:, 1:] != IGNORED_LABEL


@contextmanager
def bypassed(layer: nn.Module | None) -> Iterator[Callable[[Tensor], Tensor]]:
    """Make a layer return its input inside the block. Yields the layer's own forward; the identity without a layer."""
    if layer is None:
        yield lambda hidden: hidden
        return
    own = layer.forward
    with overridden_forward(layer, lambda hidden: hidden):
        yield own


@torch.no_grad()
def output_layer(model: Any, batch: Mapping[str, Any]) -> nn.Module | None:
    """Return the layer whose outputs the loss function reads, determined by a forward of `batch`. None if there is
    none, if the model changes its outputs first (a soft cap), or if its loss function is not transformers' own, which
    accepts the logits of selected tokens."""
    head, own = model.get_output_embeddings(), model.loss_function
    outputs: list[Tensor] = []
    read: list[bool] = []

    def loss(logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        read.append(len(outputs) == 1 and logits.dtype == outputs[0].dtype and torch.equal(logits, outputs[0]))
        return own(logits, *args, **kwargs)

    if head is None or own is not ForCausalLMLoss:
        return None
    handle = head.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    model.loss_function = loss
    try:
        model(**batch)
    finally:
        model.loss_function = own
        handle.remove()
    return head if read == [True] else None

"""Self-distillation: a model learns, while it is pruned, what it would answer unpruned and without its adapter.

For each token of an answer it learns the teacher's distribution (Hinton et al., https://arxiv.org/abs/1503.02531, at
temperature 1). That says more than the token alone, and what the teacher is not sure of is not learnt as if it were
right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from tokenprune.errors import UnsupportedError
from tokenprune.evals.adapt.rows import IGNORED


@contextmanager
def taught_by_itself(model: PeftModel, batch: Mapping[str, Any]) -> Iterator[None]:
    """Within the block, the model's loss on `batch` is its divergence from its teacher.

    Enter it before the model is patched. UnsupportedError if the model computes its loss without `loss_function`, at
    the end of the block.
    """
    base: Any = model.get_base_model()
    divergence, own = Divergence(teacher_distributions(model, batch)), base.loss_function
    base.loss_function = divergence
    try:
        yield
    finally:
        base.loss_function = own
    if not divergence.was_read:
        raise UnsupportedError(
            f"{type(base).__name__} computes its loss without loss_function, so it cannot learn its own answers. Train "
            f"it with right answers: leave out --no-labels."
        )


@torch.no_grad()
def teacher_distributions(model: PeftModel, batch: Mapping[str, Any]) -> Float[Tensor, "learnt vocabulary"]:
    """Return the log probabilities of every token at the places of the labels, without the adapter."""
    was_training = model.training
    model.eval()
    try:
        with model.disable_adapter():
            logits = model(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False).logits
    finally:
        model.train(was_training)
    return log_softmax(logits[:, :-1][learnt(batch["labels"])].float(), -1)


class Divergence:
    """A loss function for transformers' models: the mean Kullback-Leibler divergence from a teacher, in nats a token.

    teacher: log probabilities at the places of the labels, in their order; the labels' values are not read.
    """

    def __init__(self, teacher: Float[Tensor, "learnt vocabulary"]) -> None:
        self._teacher = teacher
        self.was_read = False

    def __call__(
        self, logits: Tensor, labels: Tensor, *_: Any, num_items_in_batch: Tensor | int | None = None, **__: Any
    ) -> Tensor:
        """num_items_in_batch: by how many the sum is divided, if the step has several batches."""
        self.was_read = True
        own = log_softmax(logits[:, :-1][learnt(labels)].float(), -1)
        total = kl_div(own, self._teacher, reduction="sum", log_target=True)
        return total / (len(own) if num_items_in_batch is None else num_items_in_batch)


def learnt(labels: Int[Tensor, "batch n"]) -> Bool[Tensor, "batch n-1"]:
    """Return which tokens are followed by one to learn."""
    return labels[:, 1:] != IGNORED

"""What is minimised: the loss of right answers, or the divergence from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from tokenprune.errors import UnsupportedError
from tokenprune.evals.adapt.logits import bypassed, is_learnt
from tokenprune.evals.adapt.teaching import Distributions


@contextmanager
def answer_loss(model: PeftModel, head: nn.Module | None, targets: Distributions | None = None) -> Iterator[None]:
    """Inside the block, the model's loss is that of its labels, or its divergence from `targets`, the teacher's
    distributions at the labels.

    Enter it before the model is patched. head: see `tokenprune.evals.adapt.logits.output_layer`.
    At the end of the block, UnsupportedError if the model computes its loss without `loss_function`.
    """
    if head is None and targets is None:  # the model's own loss is wanted
        yield
        return
    base: Any = model.get_base_model()
    own = base.loss_function
    with bypassed(head) as logits_of:
        loss = AnswerLoss(own, logits_of, targets)
        base.loss_function = loss
        try:
            yield
        finally:
            base.loss_function = own
    if not loss.was_read:
        raise UnsupportedError(
            f"{type(base).__name__} computes its loss without loss_function, so it cannot learn its own answers. Train "
            f"it with right answers: leave out --no-labels."
        )


class AnswerLoss:
    """A loss function for transformers' models that gets hidden states in place of logits.

    own: the model's. logits_of: the output layer. targets: the teacher's distributions at the labels, in their
    order; the labels' values are then not read.
    """

    def __init__(
        self, own: Callable[..., Tensor], logits_of: Callable[[Tensor], Tensor], targets: Distributions | None
    ) -> None:
        self._own, self._logits_of, self._targets = own, logits_of, targets
        self.was_read = False

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        vocab_size: int,
        *,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, ""]:
        """vocab_size: not read; a model may take it from the hidden states. num_items_in_batch: the sum's divisor, if
        the step has several batches."""
        self.was_read = True
        places = is_learnt(labels)
        logits = self._logits_of(logits[:, :-1][places])
        if self._targets is not None:
            total = self._targets.divergence(logits)
            return total / (len(logits) if num_items_in_batch is None else num_items_in_batch)
        kwargs.update(num_items_in_batch=num_items_in_batch, shift_labels=labels[:, 1:][places])
        return self._own(logits, labels, logits.shape[1], **kwargs)

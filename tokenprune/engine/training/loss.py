"""The loss of a model that returns fewer logits than it gets labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tokenprune.engine.call import CallContext
from tokenprune.engine.compiling import dynamo_disabled
from tokenprune.engine.overrides.override import MethodOverride
from tokenprune.sequence.packing import IGNORED_LABEL, Packing


class LossFunction(MethodOverride):
    """A model's loss function, which shortens labels written for the unpruned sequence to match the logits of the last
    call. Labels of any other length belong to a part that the caller has cut out, and stay as they are.

    function: the loss function that the model uses now; the attribute `name` may be no more than its setter.
    """

    only_instances = True

    def __init__(self, model: nn.Module, name: str, function: Callable[..., Any], context: CallContext) -> None:
        super().__init__(model, name)
        self._function, self._context = function, context

    @property
    def original(self) -> Any:
        return self._function

    def override(self, logits: Tensor, labels: Tensor | None, *args: Any, **kwargs: Any) -> Any:
        packing, shifted = self._packing(logits), kwargs.get("shift_labels")
        if packing is not None and labels is not None and labels.shape[1:] == (packing.n_columns,):
            labels = prune_labels(labels, packing)
        if packing is not None and shifted is not None and shifted.shape[1:] == (packing.n_columns,):
            kwargs["shift_labels"] = prune_shifted(shifted, packing)
        return self.original(logits, labels, *args, **kwargs)

    @dynamo_disabled
    def _packing(self, logits: Tensor) -> Packing | None:
        """The columns that the logits belong to; None for all, and for logits of another model."""
        packing = self._context.packing
        return packing if packing is not None and logits.shape[:2] == packing.columns.shape else None


def prune_labels(labels: Tensor, packing: Packing) -> Tensor:
    """The labels of the kept columns. A loss compares every label with the logits of the column before it, so a label
    that follows a hole is ignored."""
    after_a_hole = nn.functional.pad(~packing.valid, (1, 0))[:, :-1]
    columns = packing.columns.to(labels.device)
    return labels.gather(1, columns).masked_fill((~packing.valid | after_a_hole).to(labels.device), IGNORED_LABEL)


def prune_shifted(labels: Tensor, packing: Packing) -> Tensor:
    """The same for labels already aligned with the logits they are compared with."""
    unshifted = nn.functional.pad(labels, (1, 0), value=IGNORED_LABEL)[:, :-1]
    return nn.functional.pad(prune_labels(unshifted, packing)[:, 1:], (0, 1), value=IGNORED_LABEL)

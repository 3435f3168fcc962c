"""Trainers that compare labels with hidden states themselves, as TRL's do: their forward calls the base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from tokenprune.sequence.packing import IGNORED_LABEL, Packing

#: The argument by which such a trainer asks a model for the log probabilities of labels.
FUSED_HEAD = "fused_lm_head"


@dataclass(frozen=True)
class FusedLabels:
    """The labels of a call with `fused_lm_head`: one for each column, or next to what they are compared with.

    They are copies that the call gets instead of the caller's, to be changed before they are read.
    """

    labels: Int[Tensor, "batch columns"] | None
    shifted: Int[Tensor, "batch columns"] | None

    @classmethod
    def of(cls, kwargs: dict[str, Any]) -> FusedLabels:
        """Put copies of the labels into the arguments of such a call, and return them."""
        copies = {name: kwargs[name].clone() for name in ("labels", "shift_labels") if kwargs.get(name) is not None}
        kwargs.update(copies)
        return cls(copies.get("labels"), copies.get("shift_labels"))

    def spread(self, output: Any, packing: Packing | None) -> None:
        """Give the base model's output a hidden state for each column, in place: to a column that is not left, that of
        the last one before it that is. So the label after it is compared with the same as in the pruned sequence.
        Labels of columns that are not left, and of the first that is, are ignored, as in a model's own loss."""
        if packing is None:
            return
        hidden = output.last_hidden_state
        rows = torch.arange(len(hidden), device=hidden.device)[:, None]
        output.last_hidden_state = hidden[rows, packing.places().cummax(1).values.to(hidden.device)]
        ignored = ~compared(packing)
        for labels, unlike in ((self.labels, ignored), (self.shifted, pad(ignored, (0, 1), value=True)[:, 1:])):
            if labels is not None:
                labels.masked_fill_(unlike.to(labels.device), IGNORED_LABEL)


def compared(packing: Packing) -> Bool[Tensor, "batch columns"]:
    """Which columns are left and follow another one that is."""
    none = torch.zeros(len(packing.columns), packing.n_columns, dtype=torch.long, device=packing.columns.device)
    left = none.scatter_reduce(1, packing.columns, packing.valid.long(), "amax")  # holes are at column 0
    return (left > 0) & (left.cumsum(1) > 1)

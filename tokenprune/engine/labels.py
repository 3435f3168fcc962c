"""Labels of the unpruned prompt, in training: they are shortened to match the logits or, for trainers like TRL's, which
compare them with hidden states themselves and whose forward calls the base model, hidden states are spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import pad

from tokenprune.sequence.packing import IGNORED_LABEL, Packing

#: The argument with which such a trainer asks a model for the log probabilities of labels.
FUSED_HEAD = "fused_lm_head"


@dataclass(frozen=True)
class FusedLabels:
    """The labels of a call with `fused_lm_head`: copies that replace the caller's, and can be changed before they are
    read.

    labels: one label per column, if given this way.
    shifted: labels already aligned with the hidden states they are compared with, if given this way.
    """

    labels: Int[Tensor, "batch columns"] | None
    shifted: Int[Tensor, "batch columns"] | None

    @classmethod
    def of(cls, kwargs: dict[str, Any]) -> FusedLabels:
        """Replace the labels in the arguments of such a call by copies, and return the copies."""
        copies = {name: kwargs[name].clone() for name in ("labels", "shift_labels") if kwargs.get(name) is not None}
        kwargs.update(copies)
        return cls(copies.get("labels"), copies.get("shift_labels"))

    def spread(self, output: Any, packing: Packing | None) -> None:
        """Give the base model's output a hidden state for every column, in place. A dropped column gets that of the
        last kept column before it, so that the label after it is compared with the same state as in the pruned
        sequence. Labels of dropped columns and of the first kept one are ignored, as in a model's own loss."""
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
    """Which columns are kept and follow another kept column."""
    none = torch.zeros(len(packing.columns), packing.n_columns, dtype=torch.long, device=packing.columns.device)
    counted = none.scatter_reduce(1, packing.columns, packing.valid.long(), "amax")  # holes are at column 0
    return (counted > 0) & (counted.cumsum(1) > 1)


def prune_labels(labels: Tensor, packing: Packing) -> Tensor:
    """The labels of the kept columns. A loss compares every label with the logits of the column before it, so a label
    that follows a hole is ignored."""
    after_a_hole = pad(~packing.valid, (1, 0))[:, :-1]
    columns = packing.columns.to(labels.device)
    return labels.gather(1, columns).masked_fill((~packing.valid | after_a_hole).to(labels.device), IGNORED_LABEL)


def prune_shifted(labels: Tensor, packing: Packing) -> Tensor:
    """The same for labels already aligned with the logits they are compared with."""
    unshifted = pad(labels, (1, 0), value=IGNORED_LABEL)[:, :-1]
    return pad(prune_labels(unshifted, packing)[:, 1:], (0, 1), value=IGNORED_LABEL)

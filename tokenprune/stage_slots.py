"""Which part of a cache the decoder layers behind an in-LLM stage hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class StageSlots:
    """What the layers of one stage hold of a cache: `slots` of its first layer, one for each slot of theirs, of which
    those that are not `valid` are holes; `whole` says that none is."""

    layer: int
    slots: Int[Tensor, "batch held"]
    valid: Bool[Tensor, "batch held"]
    whole: bool

    @classmethod
    def all(cls, layer: int, n_slots: int, valid: Bool[Tensor, "batch slots"]) -> StageSlots:
        return cls(layer, torch.arange(n_slots, device=valid.device).expand(len(valid), -1), valid, bool(valid.all()))

    def grown(self, n_before: int, n_slots: int) -> StageSlots:
        """After the first layer's cache grew from `n_before` to `n_slots` by tokens that all layers hold."""
        tail = torch.arange(n_before, n_slots, device=self.slots.device).expand(len(self.slots), -1)
        return self.followed_by(tail, torch.ones_like(tail).bool())

    def followed_by(self, slots: Int[Tensor, "batch new"], valid: Bool[Tensor, "batch new"]) -> StageSlots:
        whole = self.whole and bool(valid.all())
        return replace(
            self, slots=torch.cat([self.slots, slots], 1), valid=torch.cat([self.valid, valid], 1), whole=whole
        )

    def with_rows(self, pick: Callable[[Tensor], Tensor]) -> StageSlots:
        return replace(self, slots=pick(self.slots), valid=pick(self.valid))

    def without_tail(self, n: int) -> StageSlots:
        valid = self.valid[:, :-n]
        return replace(self, slots=self.slots[:, :-n], valid=valid, whole=bool(valid.all()))

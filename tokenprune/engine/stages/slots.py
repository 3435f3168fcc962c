"""The part of a cache that the decoder layers of an in-LLM stage hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class StageSlots:
    """The slots that the layers of one stage hold, each given as a slot of the cache's first layer. Those not `valid`
    are holes; `has_no_holes` tells without reading from a GPU whether there are any."""

    layer: int
    slots: Int[Tensor, "batch held"]
    valid: Bool[Tensor, "batch held"]
    has_no_holes: bool

    @classmethod
    def all(cls, layer: int, valid: Bool[Tensor, "batch slots"], has_no_holes: bool) -> StageSlots:
        return cls(layer, torch.arange(valid.shape[1], device=valid.device).expand(len(valid), -1), valid, has_no_holes)

    def grown(self, n_before: int, n_slots: int) -> StageSlots:
        """After the first layer's cache grew from `n_before` to `n_slots` by tokens that all layers hold."""
        tail = torch.arange(n_before, n_slots, device=self.slots.device).expand(len(self.slots), -1)
        return self.followed_by(tail, torch.ones_like(tail).bool(), holes=False)

    def followed_by(self, slots: Int[Tensor, "batch new"], valid: Bool[Tensor, "batch new"], holes: bool) -> StageSlots:
        """With further slots of the first layer, not all of them valid if there are `holes`."""
        slots, valid = torch.cat([self.slots, slots], 1), torch.cat([self.valid, valid], 1)
        return replace(self, slots=slots, valid=valid, has_no_holes=self.has_no_holes and not holes)

    def with_rows(self, pick: Callable[[Tensor], Tensor]) -> StageSlots:
        return replace(self, slots=pick(self.slots), valid=pick(self.valid))

    def without_tail(self, n: int) -> StageSlots:
        valid = self.valid[:, :-n]
        return replace(self, slots=self.slots[:, :-n], valid=valid, has_no_holes=bool(valid.all()))

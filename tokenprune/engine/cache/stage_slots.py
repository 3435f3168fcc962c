"""The part of a cache that the decoder layers of an in-LLM stage hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class StageSlots:
    """The slots that the layers of one stage hold.

    layer: the first decoder layer of the stage.
    slots: these slots, numbered as in the cache's first layer.
    valid: False for holes.
    has_no_holes: whether all are valid; stored to avoid reading from a GPU.
    bias: what is added to the attention logits of their keys, beyond what all layers add; None if nothing is.
    """

    layer: int
    slots: Int[Tensor, "batch held"]
    valid: Bool[Tensor, "batch held"]
    has_no_holes: bool
    bias: Float[Tensor, "batch held"] | None = None

    @classmethod
    def all(cls, layer: int, valid: Bool[Tensor, "batch slots"], has_no_holes: bool) -> StageSlots:
        return cls(layer, torch.arange(valid.shape[1], device=valid.device).expand(len(valid), -1), valid, has_no_holes)

    def extend(self, n_before: int, n_slots: int) -> StageSlots:
        """The slots after the first layer's cache grew from `n_before` to `n_slots` by tokens that all layers hold."""
        tail = torch.arange(n_before, n_slots, device=self.slots.device).expand(len(self.slots), -1)
        return self.followed_by(tail, torch.ones_like(tail).bool(), holes=False)

    def followed_by(
        self,
        slots: Int[Tensor, "batch new"],
        valid: Bool[Tensor, "batch new"],
        holes: bool,
        bias: Float[Tensor, "batch new"] | None = None,
    ) -> StageSlots:
        """These slots, followed by further ones of the first layer, some of them invalid if there are `holes`."""
        if self.bias is not None or bias is not None:
            parts = ((self.bias, self.slots), (bias, slots))
            bias = torch.cat(
                [torch.zeros_like(at, dtype=torch.float32) if part is None else part for part, at in parts], 1
            )
        slots, valid = torch.cat([self.slots, slots], 1), torch.cat([self.valid, valid], 1)
        return StageSlots(self.layer, slots, valid, self.has_no_holes and not holes, bias)

    def to(self, device: torch.device) -> StageSlots:
        bias = None if self.bias is None else self.bias.to(device)
        return replace(self, slots=self.slots.to(device), valid=self.valid.to(device), bias=bias)

    def with_rows(self, pick: Callable[[Tensor], Tensor]) -> StageSlots:
        bias = None if self.bias is None else pick(self.bias)
        return replace(self, slots=pick(self.slots), valid=pick(self.valid), bias=bias)

    def without_tail(self, n: int) -> StageSlots:
        valid = self.valid[:, :-n]
        bias = None if self.bias is None else self.bias[:, :-n]
        return replace(self, slots=self.slots[:, :-n], valid=valid, has_no_holes=bool(valid.all()), bias=bias)

"""Which token each slot of a pruned KV cache holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Real, Shaped
from torch import Tensor
from torch.nn.functional import pad

from tokenprune.engine.cache.stage_slots import StageSlots
from tokenprune.errors import PruningError
from tokenprune.sequence.masks import wrong_width
from tokenprune.sequence.packing import Packing, Slots


@dataclass(frozen=True, eq=False)
class CacheIndex:
    """Which token each slot of a cache holds, up to the last forward that pruned. Slots appended later hold one column
    each.

    columns: the column that each slot holds.
    valid: False for holes and padding.
    n_columns: how many columns the indexed slots stand for.
    shift: how much lower the next position IDs of each row are than the original ones; None if they are the same.
    holes: whether any slot is not valid; stored because reading it from a GPU at every step is slow.
    bias: what is added to the attention logits of each slot's key; None if nothing is.
    stages: the slots that the decoder layers of each in-LLM stage hold; empty if all layers hold all slots.
    skipped: the decoder layers that were skipped and hold nothing.
    """

    columns: Int[Tensor, "batch slots"]
    valid: Bool[Tensor, "batch slots"]
    n_columns: int
    shift: Real[Tensor, " batch"] | None
    holes: bool
    stages: tuple[StageSlots, ...] = ()
    skipped: tuple[int, ...] = ()
    bias: Float[Tensor, "batch slots"] | None = None

    @classmethod
    def unpruned(cls, batch: int, n_slots: int, device: torch.device, skipped: tuple[int, ...]) -> CacheIndex:
        """The index of a cache that holds every column, except in the `skipped` layers."""
        slots = Slots.empty(batch, device).extend(n_slots, 0)
        return cls(slots.columns, slots.valid, n_slots, None, holes=False, skipped=skipped)

    @property
    def n_dropped(self) -> int:
        return self.n_columns - self.columns.shape[1]

    def check_layers(self, skipped: tuple[int, ...], stages: Sequence[int]) -> None:
        """Raise PruningError unless the cache was filled with exactly these layers skipped and, if it was pruned in
        stages, on entry to exactly these."""
        if self.skipped != skipped:
            raise PruningError(
                f"this cache was filled with decoder layers {list(self.skipped)} skipped, and the strategy skips "
                f"{list(skipped)}. Continue with the strategy that it was made with, or start again from an empty "
                f"cache."
            )
        pruned_at = [stage.layer for stage in self.stages]
        if pruned_at and pruned_at != list(stages):
            raise PruningError(
                f"this cache was pruned on entry to decoder layers {pruned_at}, and the strategy prunes at "
                f"{list(stages) or 'none'}. Continue with the strategy that it was made with, or start again from an "
                f"empty cache."
            )

    def slots(self, n_slots: int) -> Slots:
        """The slots of a cache that has grown to `n_slots`."""
        return Slots(self.columns, self.valid, self.bias).extend(n_slots - self.columns.shape[1], self.n_columns)

    def stages_at(self, n_slots: int) -> list[StageSlots]:
        """The slots that each stage holds in a cache that has grown to `n_slots`."""
        return [stage.extend(self.columns.shape[1], n_slots) for stage in self.stages]

    def over_slots(self, mask: Shaped[Tensor, "rows columns"] | None, n_columns: int) -> Tensor | None:
        """Convert a padding mask over `n_columns` to one over the cache's slots; None stays None if no slot is a hole.

        Raises PruningError for a mask over any other number of columns.
        """
        if mask is None:
            return pad(self.valid, (0, n_columns - self.n_columns), value=True) if self.holes else None
        if mask.shape[1] != n_columns:
            raise wrong_width(mask, n_columns)
        mask = mask.to(self.columns.device).expand(len(self.columns), -1)
        described = mask[:, : self.n_columns].gather(1, self.columns)
        return torch.cat([described * self.valid if self.holes else described, mask[:, self.n_columns :]], 1)

    def with_rows(self, pick: Callable[[Tensor], Tensor]) -> CacheIndex:
        """The index after batch rows of the cache were picked."""
        return replace(
            self,
            columns=pick(self.columns),
            valid=pick(self.valid),
            shift=None if self.shift is None else pick(self.shift),
            stages=tuple(stage.with_rows(pick) for stage in self.stages),
            bias=None if self.bias is None else pick(self.bias),
        )

    def without_tail(self, n: int) -> CacheIndex:
        """The index without its last `n` slots, which must hold the last `n` columns: text that was not pruned."""
        tail = torch.arange(self.n_columns - n, self.n_columns, device=self.columns.device)
        if n > self.columns.shape[1] or not bool((self.columns[:, -n:] == tail).all()):
            raise PruningError(
                "crop would cut a cache within its last pruned image or before it, where it does not hold a token for "
                "every column. Crop less, keep a copy.deepcopy of the cache from before the image, or start again from "
                "an empty one."
            )
        columns, valid = self.columns[:, :-n], self.valid[:, :-n]
        return replace(
            self,
            columns=columns,
            valid=valid,
            n_columns=self.n_columns - n,
            holes=not bool(valid.all()),
            stages=tuple(stage.without_tail(n) for stage in self.stages),
            bias=None if self.bias is None else self.bias[:, :-n],
        )

    @classmethod
    def after(
        cls,
        before: CacheIndex | None,
        n_slots: int,
        packing: Packing,
        shift: Real[Tensor, " batch"] | None,
        skipped: tuple[int, ...] = (),
        bias: Float[Tensor, "batch kept"] | None = None,
    ) -> CacheIndex:
        """The index after the columns of `packing`, with their `bias`, were appended to a cache of `n_slots`.

        shift: how much lower later position IDs are than before. skipped: the layers that hold no slots.
        """
        if before is None:  # everything in the cache so far is one column per slot
            batch, device = len(packing.columns), packing.columns.device
            past, n_columns = Slots.empty(batch, device).extend(n_slots, 0), n_slots
        else:
            past, n_columns = before.slots(n_slots), n_slots + before.n_dropped
            shift = before.shift if shift is None else shift if before.shift is None else shift + before.shift
        slots, end = past.append(packing, n_columns, bias), n_columns + packing.n_columns
        holes = packing.holes or (before is not None and before.holes)
        return cls(slots.columns, slots.valid, end, shift, holes, skipped=skipped, bias=slots.bias)

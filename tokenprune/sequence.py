"""Shortens sequences: which columns survive, and the embeddings, masks and position IDs that follow.

A column is an index into the sequence as the caller wrote it, dropped tokens included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from tokenprune.errors import PruningError

PositionIds = Literal["original", "compact"]


@dataclass(frozen=True, eq=False)
class Packing:
    """The surviving columns of a batch of sequences, packed to the longest.

    columns: ascending within each row, out of `n_columns`.
    valid: False where there is a hole, filler that nothing may attend to.
    """

    columns: Int[Tensor, "batch kept"]
    valid: Bool[Tensor, "batch kept"]
    n_columns: int

    def take(self, tensor: Shaped[Tensor, "rows length *rest"]) -> Shaped[Tensor, "batch kept *rest"]:
        """The surviving columns of a (batch or 1, length, ...) tensor."""
        index = self.columns.reshape(*self.columns.shape, *[1] * (tensor.ndim - 2))
        index = index.expand(-1, -1, *tensor.shape[2:])
        return tensor.expand(len(self.columns), *tensor.shape[1:]).gather(1, index)

    def take_ids(self, ids: Int[Tensor, "*components rows length"]) -> Int[Tensor, "*components batch kept"]:
        """The surviving position IDs; with several components (M-RoPE), the same columns of each."""
        return self.take(ids) if ids.ndim == 2 else torch.stack([self.take_ids(component) for component in ids])


def pack(keep: Bool[Tensor, "batch length"], right_padded: bool) -> Packing:
    """Packs the kept columns of each row. Shorter rows get their holes on the left, or on the right if
    `right_padded`, so that the last (or first) token of every row stays in line, as the caller had it."""
    n_kept = keep.sum(1, keepdim=True)
    length = int(n_kept.max())
    # A stable sort of the dropped flag brings the kept columns to the front in order.
    columns = (~keep).long().argsort(dim=1, stable=True)[:, :length]
    place = torch.arange(length, device=keep.device).expand(len(keep), -1)
    if not right_padded:
        place = place - (length - n_kept)
        columns = columns.gather(1, place.clamp(min=0))
    valid = (place >= 0) & (place < n_kept)
    return Packing(columns.masked_fill(~valid, 0), valid, keep.shape[1])


def shortened(
    dropped: Bool[Tensor, "batch new"], mask: Tensor | None, n_slots: int
) -> tuple[Packing, Bool[Tensor, "batch slots"]]:
    """Which of the new columns are left, and the padding mask over the cache's `n_slots` and those.

    Padding goes too, as far as packing allows. The mask given is one over the cache's slots and all new columns.
    """
    batch, n_new = dropped.shape
    real = torch.ones(batch, n_slots + n_new, dtype=torch.bool, device=dropped.device)
    if mask is not None:
        real = padding_mask(mask, n_slots, n_new).expand(batch, -1)
    past, new = real[:, :n_slots], real[:, n_slots:]
    right_padded = bool(new[:, 0].all()) and not bool(new[:, -1].all())
    packing = pack(new & ~dropped, right_padded)
    return packing, torch.cat([past, packing.valid], 1)


def default_ids(n_columns: int, n_new: int, device: torch.device) -> Int[Tensor, "one length"]:
    """The position IDs that a model gives by itself to `n_new` tokens behind `n_columns`: padding counts."""
    return torch.arange(n_columns, n_columns + n_new, device=device)[None]


def renumbered(
    ids: Int[Tensor, "*components rows length"], dropped: Bool[Tensor, "batch length"], position_ids: PositionIds
) -> Int[Tensor, "*components batch length"]:
    """The position IDs after pruning, dropped columns included. Compact ones count the columns that are left: each
    is lower by the number of dropped columns before it."""
    if position_ids == "original":
        return ids.expand(*ids.shape[:-2], len(dropped), -1)
    return ids - (dropped.long().cumsum(1) - dropped.long())


def id_shift(dropped: Bool[Tensor, "batch length"], position_ids: PositionIds) -> Int[Tensor, " batch"]:
    """How much lower than without pruning the position IDs of each row go on after these columns."""
    return dropped.sum(1) * (position_ids == "compact")


def padding_mask(mask: Tensor, past: int, n_new: int) -> Bool[Tensor, "rows columns"]:
    """The (batch, past + n_new) padding mask that an attention mask stands for.

    A 2-D mask must have that many columns. A 4-D mask must be that padding mask made causal, as `generate` makes it
    for static caches; any other pattern raises PruningError, since it could not be kept.
    """
    total = past + n_new
    if mask.ndim == 2:
        if mask.shape[1] != total:
            raise PruningError(
                f"attention_mask has {mask.shape[1]} columns, but the cache and this call hold {total} tokens, those "
                f"that pruning dropped included. Pass a mask of shape (batch, {total}), or none."
            )
        return mask.bool()
    if mask.ndim != 4 or mask.shape[-1] < total:
        raise PruningError(
            f"attention_mask of shape {tuple(mask.shape)} cannot be pruned; pass one of shape (batch, {total})."
        )
    allowed = (mask if mask.dtype == torch.bool else mask == 0)[:, 0, -n_new:]
    real = allowed[:, -1, :total]
    ages = torch.arange(past, total, device=mask.device)[:, None]
    causal = (torch.arange(total, device=mask.device) <= ages) & real[:, None]
    # Rows of padding may hold anything: nothing reads them.
    same = (allowed[..., :total] == causal).all(-1) & ~allowed[..., total:].any(-1) | ~real[:, past:]
    if not bool(same.all()):
        raise PruningError(
            f"the 4-D attention_mask is not a causal one, and pruning cannot keep its pattern. Pass a mask of shape "
            f"(batch, {total}), or remove the patch for this call."
        )
    return real

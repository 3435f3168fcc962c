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


def real_columns(mask: Tensor | None, n_slots: int, batch: int, n_new: int) -> Bool[Tensor, "batch columns"]:
    """Which of a cache's `n_slots` and of `n_new` columns are no padding, by the attention mask over both."""
    if mask is None:
        return torch.ones(batch, n_slots + n_new, dtype=torch.bool)
    return padding_mask(mask, n_slots, n_new).expand(batch, -1)


def shortened(
    dropped: Bool[Tensor, "batch new"], real: Bool[Tensor, "batch columns"]
) -> tuple[Packing, Bool[Tensor, "batch slots"]]:
    """Which of the new columns are left, and the padding mask over the cache's slots and those. Padding goes too, as
    far as packing allows. `real` is over the cache's slots and all new columns."""
    past, new = real[:, : -dropped.shape[1]], real[:, -dropped.shape[1] :]
    right_padded = bool(new[:, 0].all()) and not bool(new[:, -1].all())
    packing = pack(new & ~dropped, right_padded)
    return packing, torch.cat([past, packing.valid], 1)


def default_ids(n_columns: int, n_new: int, device: torch.device) -> Int[Tensor, "one length"]:
    """The position IDs that a model gives by itself to `n_new` tokens behind `n_columns`: padding counts."""
    return torch.arange(n_columns, n_columns + n_new, device=device)[None]


def renumbered(
    ids: Int[Tensor, "*components batch length"],
    dropped: Bool[Tensor, "batch length"],
    real: Bool[Tensor, "batch length"],
    position_ids: PositionIds,
) -> Int[Tensor, "*components batch length"]:
    """The position IDs after pruning; a dropped column gets that of the column left before it. `real` is False for
    padding.

    Compact ones count the columns that are left: each is lower by the number of dropped columns before it. With several
    components (M-RoPE), IDs do not count columns: a picture of h x w tokens takes only max(h, w) of them. There, in
    the rows that lose any token, all columns left are numbered one by one, in every component alike, from where
    the row begins, as a model numbers text. A picture's rows and columns are then no more to be read off the IDs.
    """
    if position_ids == "original":
        return ids
    if ids.ndim == 2:
        return ids - dropped.long().cumsum(1)
    first = ids.masked_fill(~real, torch.iinfo(ids.dtype).max).amin(-1, keepdim=True)
    counted = first + (real & ~dropped).long().cumsum(1) - 1
    return torch.where(real & dropped.any(1, keepdim=True), counted, ids)


def id_shift(
    before: Int[Tensor, "*components batch length"],
    after: Int[Tensor, "*components batch length"],
    real: Bool[Tensor, "batch length"],
) -> Int[Tensor, " batch"]:
    """How much lower than without pruning the position IDs of each row go on after these columns: what `renumbered` has
    moved the last one by that is no padding."""
    last = (real * torch.arange(real.shape[1], device=real.device)).amax(1)
    moved = (before - after)[..., torch.arange(len(last), device=last.device), last]
    return moved if moved.ndim == 1 else moved[-3:].amax(0)  # of four components, the first is no M-RoPE


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

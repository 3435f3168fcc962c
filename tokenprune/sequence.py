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

    columns: ascending within each row. Where `valid` is False there is a hole: filler that nothing may attend to.
    """

    columns: Int[Tensor, "batch kept"]
    valid: Bool[Tensor, "batch kept"]

    @property
    def length(self) -> int:
        return self.columns.shape[1]

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
    return Packing(columns.masked_fill(~valid, 0), valid)


def is_right_padded(real: Bool[Tensor, "batch length"]) -> bool:
    """Whether the padding, if there is any, is behind the tokens."""
    return bool(real[:, 0].all()) and not bool(real[:, -1].all())


def dropped_before(dropped: Bool[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """How many columns are dropped before each column: what compact position IDs are lower by."""
    return dropped.long().cumsum(1) - dropped.long()


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

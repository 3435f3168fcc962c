"""Position IDs of pruned sequences."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

PositionIds = Literal["original", "compact"]


def default_ids(n_columns: int, n_new: int, device: torch.device) -> Int[Tensor, "one length"]:
    """The position IDs that a model gives by default to `n_new` tokens after `n_columns`: padding counts."""
    return torch.arange(n_columns, n_columns + n_new, device=device)[None]


def compact_ids(
    ids: Int[Tensor, "*components batch length"],
    dropped: Bool[Tensor, "batch length"],
    real: Bool[Tensor, "batch length"],
) -> Int[Tensor, "*components batch length"]:
    """Compact position IDs, from the original ones; `real` is False for padding. A dropped column gets the ID of the
    last column left before it.

    Compact IDs count the columns that are left: each is lower by the number of dropped columns before it. With several
    components (M-RoPE), IDs do not count columns: an image of h x w tokens takes only max(h, w) of them. There, in rows
    that lose any token, all columns that are left are numbered one by one, equally in every component, from the first
    ID of the row, as a model numbers text. The IDs then no longer tell rows and columns of an image.
    """
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
    """By how much the position IDs that follow these columns are lower than without pruning, for each row: the change
    of the last column that is not padding."""
    last = (real * torch.arange(real.shape[1], device=real.device)).amax(1)
    moved = (before - after)[..., torch.arange(len(last), device=last.device), last]
    return moved if moved.ndim == 1 else moved[-3:].amax(0)  # of four components, the first is no M-RoPE

"""Position IDs of pruned sequences. They may be fractions: Qwen3-Omni's count seconds of a video."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Int, Real
from torch import Tensor

PositionIds = Literal["original", "compact"]


def default_ids(n_columns: int, n_new: int, device: torch.device) -> Int[Tensor, "one length"]:
    """Return the default position IDs of `n_new` tokens after `n_columns`; padding counts."""
    return torch.arange(n_columns, n_columns + n_new, device=device)[None]


def compact_ids(
    ids: Real[Tensor, "*components batch length"],
    dropped: Bool[Tensor, "batch length"],
    real: Bool[Tensor, "batch length"],
) -> Real[Tensor, "*components batch length"]:
    """Renumber position IDs without gaps.

    real: False for padding.

    Each ID is reduced by the number of dropped columns before it; a dropped column gets the ID of the last kept column
    before it. With several components (M-RoPE), IDs do not count columns: an image of h x w tokens uses only max(h, w)
    of them. Rows that lose any token are then numbered like text: their remaining columns get consecutive IDs, equal in
    every component, from the row's first ID, so the IDs no longer encode the rows and columns of an image.
    """
    if ids.ndim == 2:
        return ids - dropped.long().cumsum(1)
    first = ids.where(real, ids.amax(-1, keepdim=True)).amin(-1, keepdim=True)
    counted = first + (real & ~dropped).long().cumsum(1) - 1
    return torch.where(real & dropped.any(1, keepdim=True), counted, ids)


def id_shift(
    before: Real[Tensor, "*components batch length"],
    after: Real[Tensor, "*components batch length"],
    real: Bool[Tensor, "batch length"],
) -> Real[Tensor, " batch"]:
    """Return how much lower the position IDs after these columns are than without pruning, for each row.

    What follows keeps its distance to the last column that is not padding. With M-RoPE, the temporal IDs of a video may
    exceed that column's: `generate` numbers an answer from the last column on, a bare forward from the highest ID on.
    """
    last = (real * torch.arange(real.shape[1], device=real.device)).amax(1)
    moved = (before - after)[..., torch.arange(len(last), device=last.device), last]
    return moved if moved.ndim == 1 else moved[-3:].amax(0)  # the first of four components is not part of M-RoPE

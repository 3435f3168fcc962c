"""Shortens sequences: which columns survive, and the embeddings and position IDs that follow.

A column is an index into the sequence as the caller wrote it, dropped tokens included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

PositionIds = Literal["original", "compact"]


@dataclass(frozen=True, eq=False)
class Packing:
    """The surviving columns of a batch of sequences, packed to the longest.

    columns: ascending within each row, out of `n_columns`.
    valid: False where there is a hole, filler that nothing may attend to.
    counts: how many of each row are valid; known here, because asking a GPU is slow.
    right_padded: whether holes are on the right.
    """

    columns: Int[Tensor, "batch kept"]
    valid: Bool[Tensor, "batch kept"]
    n_columns: int
    counts: tuple[int, ...]
    right_padded: bool = False

    @property
    def holes(self) -> bool:
        return min(self.counts) < self.columns.shape[1]

    @property
    def drops(self) -> bool:
        """Whether anything is left out. If not, the columns are all there are, in order."""
        return self.columns.shape[1] < self.n_columns or self.holes

    def gather_tokens(self, tensor: Shaped[Tensor, "rows length *rest"]) -> Shaped[Tensor, "batch kept *rest"]:
        """The surviving columns of a (batch or 1, length, ...) tensor; no copy of it if that is all of them."""
        if not self.drops:
            return tensor.expand(len(self.columns), *tensor.shape[1:])
        index = self.columns.reshape(*self.columns.shape, *[1] * (tensor.ndim - 2))
        index = index.expand(-1, -1, *tensor.shape[2:])
        return tensor.expand(len(self.columns), *tensor.shape[1:]).gather(1, index)

    def gather_ids(self, ids: Int[Tensor, "*components rows length"]) -> Int[Tensor, "*components batch kept"]:
        """The surviving position IDs; with several components (M-RoPE), the same columns of each."""
        return (
            self.gather_tokens(ids) if ids.ndim == 2 else torch.stack([self.gather_ids(component) for component in ids])
        )


def pack(keep: Bool[Tensor, "batch length"], counts: Sequence[int], right_padded: bool) -> Packing:
    """Packs the kept columns of each row, of which there are `counts`. Shorter rows get their holes on the left, or on
    the right if `right_padded`, so that the last (or first) token of every row stays in line, as the caller had it."""
    length = max(counts)
    columns = true_indices(keep, length)
    place = torch.arange(length, device=keep.device).expand(len(keep), -1)
    n_kept = keep.sum(1, keepdim=True)
    if not right_padded:
        place = place - (length - n_kept)
        columns = columns.gather(1, place.clamp(min=0))
    valid = (place >= 0) & (place < n_kept)
    return Packing(columns.masked_fill(~valid, 0), valid, keep.shape[1], tuple(counts), right_padded)


def true_indices(mask: Bool[Tensor, "*rows length"], count: int) -> Int[Tensor, "*rows count"]:
    """Where a mask is true, in order, given how often, or of several rows how often at most; others follow. `nonzero`
    would ask a GPU how often."""
    # A stable sort of the flag brings the true ones to the front in order.
    return (~mask).int().argsort(dim=-1, stable=True)[..., :count]


def identity_packing(batch: int, n_new: int, device: torch.device) -> Packing:
    """All columns of a call from which nothing is dropped."""
    columns = torch.arange(n_new, device=device).expand(batch, -1)
    return Packing(columns, torch.ones_like(columns).bool(), n_new, (n_new,) * batch)


def default_ids(n_columns: int, n_new: int, device: torch.device) -> Int[Tensor, "one length"]:
    """The position IDs that a model gives by itself to `n_new` tokens behind `n_columns`: padding counts."""
    return torch.arange(n_columns, n_columns + n_new, device=device)[None]


def renumber(
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
    """How much lower than without pruning the position IDs of each row go on after these columns: what `renumber` has
    moved the last one by that is no padding."""
    last = (real * torch.arange(real.shape[1], device=real.device)).amax(1)
    moved = (before - after)[..., torch.arange(len(last), device=last.device), last]
    return moved if moved.ndim == 1 else moved[-3:].amax(0)  # of four components, the first is no M-RoPE

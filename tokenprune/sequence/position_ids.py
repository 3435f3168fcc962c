"""Position IDs of pruned sequences. They may be fractions: Qwen3-Omni's count seconds of a video."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Int, Real
from torch import Tensor

from tokenprune.tokens.layout import Layout
from tokenprune.tokens.shrunk import Shrunk

PositionIds = Literal["original", "compact"]


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


def shrunk_ids(
    ids: Real[Tensor, "3 batch length"],
    images: Iterable[tuple[int, Int[Tensor, " _"], Layout, Shrunk]],
    above_time: bool = False,
) -> Real[Tensor, "3 batch length"]:
    """Renumber a prompt as if smaller versions of its images had been passed, for models whose IDs of time, row and
    column continue after an image above its longer side (M-RoPE).

    images: in reading order, the row of the batch, the columns of the visual tokens, and the layout of the image as it
        was passed, and its smaller version.
    above_time: whether IDs continue after a video above its times, too.

    What a model numbers by itself, because there is text in between, such as some models' video frames, is renumbered
    by itself. Dropped columns are moved like what follows them.
    """
    ids = ids.clone()
    for row, columns, whole, small in images:
        (_, height, width), (_, rows, n_columns) = whole.grid, small.layout.grid
        places = small.layout.coordinates()[:, 2:].T.to(ids)
        breaks = (columns.diff() != 1).nonzero()[:, 0] + 1
        ends = [0, *breaks.tolist(), len(columns)]
        for start, end in pairwise(ends):
            inside = (small.kept >= start) & (small.kept < end)
            first, kept = columns[start], columns[small.kept[inside]]
            corner, time = ids[1:, row, first, None].clone(), ids[0, row, kept].clone()
            sides = corner.new_tensor([max(height, width), max(rows, n_columns)])
            before, after = (corner[0] + sides).clamp(min=time.max() + 1) if above_time else corner[0] + sides
            ids[:, row, first:] -= before - after
            ids[1:, row, kept] = corner + places[:, inside.to(places.device)]
            ids[0, row, kept] = time
    return ids

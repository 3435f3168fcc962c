"""VFlowOpt's recycling (https://arxiv.org/abs/2508.05211, section 3): dropped tokens live on, one per grid cell."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection import Merge, Selection
from tokenprune.tokens import Layout


def cells_of(layout: Layout, side: float) -> tuple[Int[Tensor, " visual"], int]:
    """The square cell, `side` tokens wide, that each visual token lies in, counted on through frames and rasters; and
    how many cells there are."""
    parts, n_cells = [], 0
    for frames, height, width in layout.grids:
        down, across = ((torch.arange(length) / side).floor().long() for length in (height, width))
        per_row = int(across[-1]) + 1
        of_frame = down[:, None] * per_row + across
        n_frame = int(of_frame[-1, -1]) + 1
        parts.append((n_cells + n_frame * torch.arange(frames)[:, None, None] + of_frame).flatten())
        n_cells += frames * n_frame
    return torch.cat(parts), n_cells


def recycled(scores: Float[Tensor, " visual"], cells: Int[Tensor, " visual"], n_cells: int, n_kept: int) -> Selection:
    """The best tokens, and from every cell, of `n_cells`, that loses tokens one that they are merged into, `n_kept` in
    all.

    A cell's token is its best lost one: it keeps its place, and its features become the mean of all lost tokens of the
    cell, weighted by their scores. As many tokens as possible stay whole. With more cells than `n_kept`, the cells
    whose best tokens score highest are kept, and no token stays whole.
    """
    n_visual = len(scores)
    if n_kept == n_visual:
        return Selection.all(n_visual, scores.device, scores.detach())
    order = scores.argsort(descending=True, stable=True)
    rank = order.argsort()
    # A cell loses tokens to a cut behind the best m as long as its worst token ranks m or lower.
    worst = rank.new_zeros(n_cells).scatter_reduce(0, cells, rank, "amax", include_self=False)
    whole = rank.new_zeros(n_visual + 1).index_add(0, worst + 1, torch.ones_like(worst)).cumsum(0)  # cells, at each cut
    losing = n_cells - whole
    needed = torch.arange(n_visual + 1, device=rank.device) + losing  # grows by 0 or 1 from cut to cut
    fitting = (needed <= n_kept).sum(0, keepdim=True).sub(1).clamp(min=0)
    cut, n_losing = torch.cat([fitting, losing[fitting]]).tolist()

    lost = order[cut:]  # best first
    best = rank.new_full((n_cells,), n_visual).scatter_reduce(0, cells[lost], rank[lost], "amin")
    n_heads = min(n_losing, n_kept - cut)
    heads = order[best.sort().values[:n_heads]]
    kept = torch.cat([order[:cut], heads]).sort().values

    place = torch.full((n_cells,), -1, device=rank.device)  # of each cell's token within kept
    place[cells[heads]] = torch.searchsorted(kept, heads)
    sources = lost if n_heads == n_losing else lost[place[cells[lost]] >= 0]
    weights = scores[sources].float().clamp(min=torch.finfo(torch.float32).tiny)
    return Selection(kept, n_visual, scores.detach(), Merge.mean(place[cells[sources]], sources, weights, n_kept))

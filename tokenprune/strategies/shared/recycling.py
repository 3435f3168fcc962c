"""Recycling: dropped tokens are merged into a few. VFlowOpt (https://arxiv.org/abs/2508.05211, section 3) makes one of
each cell of the grid, SparseVLM (https://arxiv.org/abs/2410.04417, section 3.3) one of each cluster."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.selection import Merge, Selection
from tokenprune.strategies.shared.density import density_peaks, nearest_centres, scaled_distances


def recycle_by_cell(
    scores: Float[Tensor, " visual"],
    cells: Int[Tensor, " visual"],
    n_cells: int,
    n_kept: int,
    newline: Bool[Tensor, " visual"] | None = None,
) -> Selection:
    """Keep the best tokens, and merge the others into one token per cell: `n_kept` in total. Newline tokens are kept or
    dropped, and never merged.

    The token of a cell is the best of those that the cell loses. It keeps its place, and its features become the mean
    of all the cell's lost tokens, weighted by score. As many tokens as possible stay unmerged. If more than `n_kept`
    cells exist, those whose best tokens score highest are kept, and no token stays unmerged.
    """
    n_visual = len(scores)
    if n_kept == n_visual:
        return Selection.all(n_visual, scores.device, scores.detach())
    order = scores.argsort(descending=True, stable=True)
    rank = order.argsort()
    # Keeping only the best m tokens takes some from a cell as long as the cell's worst token ranks m or lower.
    merged = rank if newline is None else rank.masked_fill(newline, -1)
    worst = rank.new_full((n_cells,), -1).scatter_reduce(0, cells, merged, "amax")
    # The cells that lose nothing at each m.
    whole = rank.new_zeros(n_visual + 1).index_add(0, worst + 1, torch.ones_like(worst)).cumsum(0)
    losing = n_cells - whole
    needed = torch.arange(n_visual + 1, device=rank.device) + losing  # grows by 0 or 1 with m
    fitting = (needed <= n_kept).sum(0, keepdim=True).sub(1).clamp(min=0)
    cut, n_losing = torch.cat([fitting, losing[fitting]]).tolist()

    lost = order[cut:]  # best first
    if newline is not None:
        lost = lost[~newline[lost]]
    best = rank.new_full((n_cells,), n_visual).scatter_reduce(0, cells[lost], rank[lost], "amin")
    n_heads = min(n_losing, n_kept - cut)
    heads = order[best.sort().values[:n_heads]]
    kept = torch.cat([order[:cut], heads]).sort().values

    place = torch.full((n_cells,), -1, device=rank.device)  # index of each cell's token within kept
    place[cells[heads]] = torch.searchsorted(kept, heads)
    sources = lost if n_heads == n_losing else lost[place[cells[lost]] >= 0]
    weights = scores[sources].float().clamp(min=torch.finfo(torch.float32).tiny)
    return Selection(kept, n_visual, scores.detach(), Merge.mean(place[cells[sources]], sources, weights, n_kept))


def recycling_counts(n_dropped: int, recycle: float, clusters: float) -> tuple[int, int]:
    """Return how many dropped tokens are recycled, and into how many clusters: at least 1 each if any is dropped."""
    if n_dropped == 0:
        return 0, 0
    n_recycled = min(int(recycle * n_dropped) + 1, n_dropped)
    return n_recycled, min(int(clusters * n_recycled) + 1, n_recycled)


def recycle_by_cluster(
    scores: Float[Tensor, " left"],
    order: Int[Tensor, " left"],
    features: Float[Tensor, "left width"],
    n_kept: int,
    recycle: float,
    clusters: float,
) -> Selection:
    """Keep the first tokens of an order, and merge the first of the others into cluster centres: `n_kept` in total.

    Densities are measured from as many neighbours as there are clusters. So a single cluster has no dense tokens, and
    its centre is the first of its tokens.
    """
    n_left = len(scores)
    if n_kept == n_left:
        return Selection.first(order, n_kept, scores)
    # One more unmerged token costs at most one cluster, so the largest number that fits fills the budget.
    fitting = (n for n in range(n_kept, -1, -1) if n + recycling_counts(n_left - n, recycle, clusters)[1] <= n_kept)
    n_whole = next(fitting, 0)
    n_recycled, n_clusters = recycling_counts(n_left - n_whole, recycle, clusters)
    sources = order[n_whole : n_whole + n_recycled]
    distances = scaled_distances(features[sources])
    centres = density_peaks(distances, min(n_clusters, n_kept), n_clusters)
    members = nearest_centres(distances, centres)
    kept = torch.cat([order[:n_whole], sources[centres]]).sort().values
    targets = torch.searchsorted(kept, sources[centres])[members]
    merge = Merge.mean(targets, sources, torch.ones_like(sources, dtype=torch.float32), len(kept))
    return Selection(kept, n_left, scores.detach(), merge)

"""SparseVLM's recycling (https://arxiv.org/abs/2410.04417, section 3.3): merge dropped tokens, one per cluster."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection import Merge, Selection

NEIGHBOURS = 5  # that the density around a token is measured from


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
    """Keep the first tokens of an order, and merge the first of the others into cluster centres: `n_kept` in total."""
    n_left = len(scores)
    if n_kept == n_left:
        return Selection.first(order, n_kept, scores)
    # One more unmerged token costs at most one cluster, so the largest number that fits fills the budget.
    fitting = (n for n in range(n_kept, -1, -1) if n + recycling_counts(n_left - n, recycle, clusters)[1] <= n_kept)
    n_whole = next(fitting, 0)
    n_recycled, n_clusters = recycling_counts(n_left - n_whole, recycle, clusters)
    sources = order[n_whole : n_whole + n_recycled]
    centres, members = density_peaks(features[sources], min(n_clusters, n_kept))
    kept = torch.cat([order[:n_whole], sources[centres]]).sort().values
    targets = torch.searchsorted(kept, sources[centres])[members]
    merge = Merge.mean(targets, sources, torch.ones_like(sources, dtype=torch.float32), len(kept))
    return Selection(kept, n_left, scores.detach(), merge)


def density_peaks(
    features: Float[Tensor, "tokens width"], n_clusters: int
) -> tuple[Int[Tensor, " clusters"], Int[Tensor, " tokens"]]:
    """Return the tokens that are cluster centres, and for every token the cluster of its nearest centre.

    A token's density is exp(-mean squared distance to its nearest neighbours). Centres are the tokens with the highest
    product of density and distance to the nearest denser token. Distances are divided by the square root of the width.
    """
    distances = torch.cdist(features.float(), features.float()) / features.shape[1] ** 0.5
    # Without the first, which is the token itself.
    nearest = distances.topk(min(NEIGHBOURS + 1, len(features)), largest=False).values[:, 1:]
    log_density = -nearest.square().mean(1) if nearest.shape[1] else distances.new_zeros(len(features))
    centres = log_prominence(distances, log_density).argsort(descending=True, stable=True)[:n_clusters]
    members = distances[:, centres].argmin(1)
    members[centres] = torch.arange(len(centres), device=members.device)
    return centres, members


def log_prominence(
    distances: Float[Tensor, "tokens tokens"], log_density: Float[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """Return the logarithm, which does not underflow, of each token's density times its distance to the nearest denser
    token; for the densest, times the largest distance. Of equally dense tokens, the first counts as denser."""
    rank = log_density.argsort(descending=True, stable=True).argsort()
    denser = rank[None] < rank[:, None]
    isolation = distances.masked_fill(~denser, torch.inf).amin(1)
    return log_density + torch.where(rank == 0, distances.max(), isolation).log()

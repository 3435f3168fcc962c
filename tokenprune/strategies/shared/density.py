"""SparseVLM's recycling (https://arxiv.org/abs/2410.04417, section 3.3): merge dropped tokens, one per cluster."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection import Merge, Selection

NEIGHBOURS = 5  # that the density around a token is measured from, without the token itself


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
    distances = scaled_distances(features[sources])
    centres = density_peaks(distances, min(n_clusters, n_kept), NEIGHBOURS)
    members = nearest_centres(distances, centres)
    kept = torch.cat([order[:n_whole], sources[centres]]).sort().values
    targets = torch.searchsorted(kept, sources[centres])[members]
    merge = Merge.mean(targets, sources, torch.ones_like(sources, dtype=torch.float32), len(kept))
    return Selection(kept, n_left, scores.detach(), merge)


def scaled_distances(features: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens tokens"]:
    """Return the distances between tokens, divided by the square root of the width. Detached: they only select."""
    vectors = features.detach().float()
    return torch.cdist(vectors, vectors) / vectors.shape[1] ** 0.5


def density_peaks(
    distances: Float[Tensor, "tokens tokens"], n_peaks: int, n_neighbours: int, *, with_itself: bool = False
) -> Int[Tensor, " peaks"]:
    """Return the tokens with the highest products of density and distance to the nearest denser token.

    A token's density is exp(-mean squared distance to its nearest neighbours).

    with_itself: the token is one of its own neighbours.
    """
    first = 0 if with_itself else 1  # of the nearest tokens, the token itself
    nearest = distances.topk(min(n_neighbours + first, len(distances)), largest=False).values[:, first:]
    log_density = -nearest.square().mean(1) if nearest.shape[1] else distances.new_zeros(len(distances))
    return log_prominence(distances, log_density).argsort(descending=True, stable=True)[:n_peaks]


def nearest_centres(
    distances: Float[Tensor, "tokens tokens"], centres: Int[Tensor, " centres"]
) -> Int[Tensor, " tokens"]:
    """Return the place of each token's nearest centre among the centres; a centre's own is itself, even of equal
    ones."""
    nearest = distances[:, centres].argmin(1)
    nearest[centres] = torch.arange(len(centres), device=nearest.device)
    return nearest


def log_prominence(
    distances: Float[Tensor, "tokens tokens"], log_density: Float[Tensor, " tokens"]
) -> Float[Tensor, " tokens"]:
    """Return the logarithm, which does not underflow, of each token's density times its distance to the nearest denser
    token; for the densest, times the largest distance. Of equally dense tokens, the first counts as denser."""
    rank = log_density.argsort(descending=True, stable=True).argsort()
    denser = rank[None] < rank[:, None]
    isolation = distances.masked_fill(~denser, torch.inf).amin(1)
    return log_density + torch.where(rank == 0, distances.max(), isolation).log()

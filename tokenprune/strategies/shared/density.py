"""Clusters of tokens around density peaks, as SparseVLM and FastVID form them: dense tokens far from any denser one."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def scaled_distances(features: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens tokens"]:
    """Return the distances between tokens, divided by the square root of the width. Detached: they only select."""
    vectors = features.detach().float()
    return torch.cdist(vectors, vectors) / vectors.shape[1] ** 0.5


def density_peaks(distances: Float[Tensor, "tokens tokens"], n_peaks: int, n_neighbours: int) -> Int[Tensor, " peaks"]:
    """Return the tokens with the highest products of density and distance to the nearest denser token.

    A token's density is exp(-mean squared distance to its nearest neighbours), of which it is one itself.
    """
    nearest = distances.topk(min(n_neighbours, len(distances)), largest=False).values
    return log_prominence(distances, -nearest.square().mean(1)).argsort(descending=True, stable=True)[:n_peaks]


def nearest_centres(
    distances: Float[Tensor, "tokens tokens"], centres: Int[Tensor, " centres"]
) -> Int[Tensor, " tokens"]:
    """Return the index, among the centres, of each token's nearest one; a centre's own is itself, even among equals."""
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

"""Cosine similarity of visual tokens in blocks, so that a large image never needs the whole matrix at once."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tokenprune.tokens.attention import BLOCK_ELEMENTS


def unit_vectors(vectors: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
    """Scale vectors to length 1 in float32, detached, so that their products are cosines. Zero vectors stay zero."""
    return normalize(vectors.detach().float(), dim=1)


def most_similar(
    queries: Float[Tensor, "n width"], candidates: Float[Tensor, "m width"], count: int = 1
) -> tuple[Float[Tensor, "n count"], Int[Tensor, "n count"]]:
    """Return the cosines and the indices of each query's `count` most similar candidates, best first.

    Queries and candidates are unit vectors.
    """
    # Not `block_length`, whose smaller blocks on a CPU would change the last bits of the products.
    blocks = queries.split(max(1, BLOCK_ELEMENTS // len(candidates)))
    found = [(block @ candidates.T).topk(count, dim=1) for block in blocks]
    return torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])

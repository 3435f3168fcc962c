"""Cosine similarity of visual tokens in blocks, so that a large image never needs the whole matrix at once."""

from __future__ import annotations

from collections.abc import Iterator

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
    tops = [(block @ candidates.T).topk(count, dim=1) for block in blocks]
    return torch.cat([top.values for top in tops]), torch.cat([top.indices for top in tops])


class Cosines:
    """The cosines of unit vectors to each other: stored if there are at most BLOCK_ELEMENTS, else recomputed when
    needed."""

    def __init__(self, vectors: Float[Tensor, "n width"]) -> None:
        self._vectors = vectors
        self.stored = vectors @ vectors.T if len(vectors) ** 2 <= BLOCK_ELEMENTS else None

    def of(self, index: Int[Tensor, " some"]) -> Float[Tensor, "some n"]:
        """Return the cosines of some vectors to all."""
        return self._vectors[index] @ self._vectors.T if self.stored is None else self.stored[index]

    def blocks(self) -> Iterator[Float[Tensor, "some n"]]:
        """Yield the cosines of all vectors in order, at most BLOCK_ELEMENTS of them at a time."""
        if self.stored is not None:
            yield self.stored
            return
        for block in self._vectors.split(max(1, BLOCK_ELEMENTS // len(self._vectors))):
            yield block @ self._vectors.T

"""Cosine similarity of visual tokens, in blocks: the whole map of a large image never exists."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

# Similarities held at once: 64 MiB in float32.
BLOCK_ELEMENTS = 2**24


def unit(vectors: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
    """Vectors of length 1 in float32, whose products are cosines; one of length 0 stays so. No gradient goes back."""
    return normalize(vectors.detach().float(), dim=1)


def most_similar(
    asking: Float[Tensor, "n width"], candidates: Float[Tensor, "m width"], count: int = 1
) -> tuple[Float[Tensor, "n count"], Int[Tensor, "n count"]]:
    """The cosines and the indices of the `count` candidates that are most similar to each asking one, best first. Both
    are unit vectors."""
    blocks = asking.split(max(1, BLOCK_ELEMENTS // len(candidates)))
    found = [(block @ candidates.T).topk(count, dim=1) for block in blocks]
    return torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])

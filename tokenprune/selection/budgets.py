"""How many visual tokens may be kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.errors import PruningError, SettingError


def budget(n_visual: int, keep_ratio: float | None, keep: int | None) -> int:
    """The number of visual tokens to keep of an image's `n_visual`.

    A ratio is rounded half up and never to 0; a count is capped at `n_visual`. Raises SettingError if neither is given.
    """
    if keep is not None:
        return min(int(keep), n_visual)
    if keep_ratio is None:
        raise SettingError(
            "a budget has neither keep_ratio nor keep. Call super().__post_init__() first in the __post_init__ of your "
            "strategy, and give every Stage one of the two: Stage(layer, keep_ratio=0.25)."
        )
    return max(1, math.floor(keep_ratio * n_visual + 0.5))


def tile_share(n_visual: int, n_image: int | None, keep_ratio: float | None, keep: int | None) -> int:
    """The number of visual tokens to leave in a tile with `n_visual`, of an image with `n_image`.

    For an image of one tile, this is the image's budget. Otherwise it is the tile's share, rounded up, so that the
    tiles have at least the image's budget; a count is not divided if `n_image` is not known (None).
    """
    if n_visual == n_image or (n_image is None and keep is not None):
        return budget(n_visual, keep_ratio, keep)
    ratio = keep_ratio if keep is None or n_image is None else min(1.0, keep / n_image)
    assert ratio is not None
    return max(1, math.ceil(ratio * n_visual - 1e-9))  # 0.07 * 100 is a bit more than 7


def n_reaching(scores: Float[Tensor, " left"], mass: float) -> int:
    """Count the fewest tokens whose scores add up to the share `mass` of the total; all tokens for a mass of 1.

    Raises PruningError for a negative or infinite score, with which a share of the total means nothing.
    """
    if mass == 1:
        return len(scores)
    ordered = scores.detach().float().sort(descending=True).values
    carried = ordered.cumsum(0) / ordered.sum().clamp(min=torch.finfo(ordered.dtype).tiny)
    counts = [(carried < mass).sum(), (ordered < 0).any().long(), ordered.isinf().any().long()]
    below, negative, infinite = torch.stack(counts).tolist()  # one wait for a GPU
    if negative or infinite:
        kind = "negative" if negative else "infinite"
        raise PruningError(
            f"some importance scores are {kind}, so no tokens carry a share of them. Leave out mass, or return finite "
            f"scores of at least 0."
        )
    return min(int(below) + 1, len(scores))


def split(count: int, sizes: Sequence[int]) -> list[int]:
    """Split `count` exactly into one integer per part, in proportion to the parts' sizes and spread evenly.

    No part gets more than its size if `count` is at most their sum.
    """
    ends = [end * count // sum(sizes) for end in accumulate(sizes, initial=0)] if sizes else [0]
    return [end - start for start, end in pairwise(ends)]

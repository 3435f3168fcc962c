"""Images that the model gets as square crops and as one square of the whole. Towers get the wholes of all images first;
an image's visual tokens are those of its crops, then those of the whole.

All tiles of an image are recorded in rasters of one size: a smaller tile is placed in the top left corner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import isqrt
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, pad

from tokenprune.tokens.layout import Layout


def image_by_image(name: str, tiles: Sequence[Any], layouts: Sequence[Layout], n_prefix: int = 0) -> list[Any]:
    """Reorder a statistic of all wholes and then all crops image by image. Pixels of crops are resized to the whole's
    size; colours, and the queries and keys after `n_prefix` tokens, are put into the corner."""
    wholes, crops = tiles[: len(layouts)], iter(tiles[len(layouts) :])
    return [
        tile
        for layout, whole in zip(layouts, wholes, strict=True)
        for tile in _same_size(name, [*islice(crops, layout.n_tiles - 1), whole], n_prefix)
    ]


def corner(values: Float[Tensor, "tiles patches"], side: int) -> Float[Tensor, "tiles side side"]:
    """The top left side x side patches of every tile's raster."""
    return rearrange(values, "tile (row column) -> tile row column", row=isqrt(values.shape[1]))[:, :side, :side]


def _same_size(name: str, tiles: list[Any], n_prefix: int) -> Iterator[Any]:
    if name in ("vision_attention", "early_attention"):
        side = max(isqrt(queries.shape[1] - n_prefix) for queries, *_ in tiles)
        n_visual = max((len(tile[3]) for tile in tiles if len(tile) > 3), default=0)
        yield from (_in_corner(tile, n_prefix, side, n_visual) for tile in tiles)
        return
    height = max(tile.shape[-1] for tile in tiles)
    for tile in tiles:
        more = height - tile.shape[-1]
        if name == "pixels" and more:
            yield interpolate(tile[None].float(), (height, height), mode="bilinear")[0].to(tile.dtype)
        else:
            yield pad(tile, (0, more, 0, more))


def _in_corner(tile: tuple[Tensor, ...], n_prefix: int, side: int, n_visual: int) -> tuple[Tensor, ...]:
    """Place a tile's queries and keys in a raster of side x side patches. Returns them, which tokens are real, and the
    shares of `n_visual` visual tokens, if there are any."""
    device, own = tile[1].device, isqrt(tile[1].shape[1] - n_prefix)
    patches = (torch.arange(own, device=device)[:, None] * side + torch.arange(own, device=device)).flatten()
    places = torch.cat([torch.arange(n_prefix, device=device), n_prefix + patches])
    n_tokens = n_prefix + side**2
    queries, keys = (
        part.new_zeros(len(part), n_tokens, part.shape[2]).index_copy(1, places, part) for part in tile[:2]
    )
    real = torch.zeros(n_tokens, dtype=torch.bool, device=device).index_fill(0, places, True)
    shares = [pad(share, (0, 0, 0, n_visual - len(share))) for share in tile[3:]]
    spread = [share.new_zeros(n_visual, side**2).index_copy(1, patches, share) for share in shares]
    return (queries, keys, real, *spread)

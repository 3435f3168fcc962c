"""Images of any resolution: an overview, and tiles assembled into one canvas with newline tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf, nan

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.tokens.layout import Layout

#: Packs a map over the patches of all tiles as the model packs their features: overview, then the canvas row by row.
#: Newline tokens get the given number.
Pack = Callable[[Float[Tensor, "tiles patches"], float], Float[Tensor, " visual"]]


def anyres_layout(pack: Pack, rows: int, columns: int, side: int) -> Layout:
    """The layout of an overview and rows x columns tiles, of side x side patches each.

    Only `pack` knows how the canvas is cropped and resized and where its newline tokens are. A newline token belongs to
    the right-most tile of its row.
    """
    canvas_row, canvas_column = (pack(place, nan) for place in canvas_places(rows, columns, side))
    newlines = canvas_row.isnan()
    overview = torch.arange(len(newlines), device="cpu") < side**2
    # Half a patch moves a place to the patch's centre; the rest decides ties for centres on a border.
    tile_row, tile_column = ((place + 0.501) // side for place in (canvas_row, canvas_column))
    tiles = (1 + tile_row * columns + tile_column).masked_fill(overview, 0)
    last_patch = torch.arange(len(newlines), device="cpu").masked_fill(newlines, 0).cummax(0).values

    grids = [(1, side, side)]
    height = int(newlines.sum())
    if height:  # only the overview may be left of an image that is nearly a line
        grids.append((1, height, (len(newlines) - side**2) // height))
    in_rows = Layout(tuple(grids)).rows()
    return Layout(
        tuple(grids),
        1 + rows * columns,
        partial(pack_with_row_maxima, pack=pack, newlines=newlines, rows=in_rows),
        tiles[last_patch].long(),
        newlines,
    )


def canvas_places(rows: int, columns: int, side: int) -> tuple[Float[Tensor, "tiles patches"], ...]:
    """Return the row and the column of every patch on the canvas, as maps; 0 on the overview."""
    tile_row, row, tile_column, column = torch.meshgrid(
        *(torch.arange(n, device="cpu").float() for n in (rows, side, columns, side)), indexing="ij"
    )
    places = (tile_row * side + row, tile_column * side + column)
    tiles = (place.permute(0, 2, 1, 3).reshape(-1, side**2) for place in places)
    return tuple(torch.cat([torch.zeros(1, side**2, device="cpu"), place]) for place in tiles)


def pack_with_row_maxima(
    values: Float[Tensor, "tiles patches"], pack: Pack, newlines: Bool[Tensor, " visual"], rows: Int[Tensor, " visual"]
) -> Float[Tensor, " visual"]:
    """Pack a map as features are packed; a newline token stands for its row, so it gets the row's highest value, or the
    lowest value of all if nothing else is left of the row."""
    packed = pack(values, -inf)
    rows, newlines = rows.to(packed.device), newlines.to(packed.device)
    best = packed.new_full((int(rows.max()) + 1,), -inf).scatter_reduce(0, rows, packed, "amax")
    best = torch.where(best == -inf, packed.masked_fill(newlines, inf).amin(), best)
    return torch.where(newlines, best[rows], packed)

"""Background Token Pruning's clustering (GeoLLaVA-8K, https://arxiv.org/abs/2505.21375), without its learned affinity.

Every visual token may be linked to one of its neighbours; what is linked is one cluster, and its root stands for it.
Links never cross tiles, frames or rasters, and newline tokens have none.
"""

from __future__ import annotations

from itertools import groupby
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tokenprune.tokens import Layout

#: One step (down, right) to the four neighbours that follow a token in raster order; the other four precede it.
AHEAD = ((0, 1), (1, -1), (1, 0), (1, 1))

# Features normalised at once: 32 MiB in float32.
BLOCK_ELEMENTS = 2**23


def best_links(
    features: Float[Tensor, "visual width"], layout: Layout
) -> tuple[Int[Tensor, " visual"], Float[Tensor, " visual"]]:
    """Each token's link, to its most similar neighbour in the 3 x 3 window, itself excluded; and their cosine.

    Of two tokens that are each other's best, the first is a root and linked to itself, and so is one without
    neighbours, which has -inf for a cosine. Of equal neighbours the first in raster order is best, so there are no
    longer cycles, and every link joins two clusters that are otherwise apart.
    """
    raster, frame = layout.coordinates()[:, :2].T
    tiles = torch.zeros_like(frame) if layout.tiles is None else layout.tiles.cpu()
    regions = (raster * (frame.max() + 1) + frame) * (tiles.max() + 1) + tiles
    if layout.newlines is not None:
        regions = regions.masked_fill(layout.newlines.cpu(), -1)
    regions = regions.to(features.device)
    parents, cosines, start = [], [], 0
    for (rows, columns), grids in groupby(layout.grids, key=lambda grid: grid[1:]):
        # Rasters of one size are one block, so that tiles cost no loop.
        n_frames = sum(frames for frames, _, _ in grids)
        part = slice(start, start + n_frames * rows * columns)
        block = features[part].view(n_frames, rows, columns, -1)
        found, cosine = best_neighbours(block, regions[part].view(n_frames, rows, columns))
        parents.append(found + start)
        cosines.append(cosine)
        start = part.stop
    return torch.cat(parents), torch.cat(cosines)


def best_neighbours(
    features: Float[Tensor, "tiles rows columns width"], regions: Int[Tensor, "tiles rows columns"]
) -> tuple[Int[Tensor, " visual"], Float[Tensor, " visual"]]:
    """`best_links` of equal rasters, tile after tile, to tokens of the same region; in a negative one are none. Tiles
    must be different regions."""
    columns, n = features.shape[2], prod(features.shape[:3])
    index, flat = torch.arange(n, device=features.device), regions.flatten()
    steps = [down * columns + right for down, right in AHEAD]
    ahead = similarities(features.flatten(0, 1)).flatten(1)
    for towards, step in zip(ahead, steps, strict=True):
        towards.masked_fill_((flat != flat.roll(-step)) | (flat < 0), -torch.inf)
    behind = torch.stack([towards.roll(step) for towards, step in zip(ahead, steps, strict=True)]).flip(0)
    cosines, best = torch.cat([behind, ahead]).max(0)  # the first of equals
    parents = index + torch.tensor([-step for step in steps[::-1]] + steps, device=index.device)[best]
    parents = torch.where(cosines == -torch.inf, index, parents)
    first = (parents[parents] == index) & (index < parents)
    return torch.where(first, index, parents), cosines


def similarities(features: Float[Tensor, "rows columns width"]) -> Float[Tensor, "4 rows columns"]:
    """The cosine of every token with its neighbour at each step AHEAD; -inf where there is none. Computed in bands of
    rows: beside the result, memory does not grow with the raster. No gradient comes from them: they choose."""
    features = features.detach()
    n_rows, columns, width = features.shape
    result = features.new_full((4, n_rows, columns), -torch.inf, dtype=torch.float32)
    height = max(1, BLOCK_ELEMENTS // (columns * width))
    for top in range(0, n_rows, height):
        band = normalize(features[top : top + height + 1].float(), dim=-1)  # and the row below it
        for cosines, (down, right) in zip(result, AHEAD, strict=True):
            here = slice(max(0, -right), columns - max(0, right))
            there = slice(max(0, right), columns - max(0, -right))
            last = min(height, len(band) - down)
            products = torch.linalg.vecdot(band[:last, here], band[down : last + down, there])
            cosines[top : top + last, here] = products
    return result


def cut(
    parents: Int[Tensor, " visual"],
    cosines: Float[Tensor, " visual"],
    threshold: float,
    most: Int[Tensor, " groups"],
    groups: Int[Tensor, " visual"],
) -> Int[Tensor, " visual"]:
    """The parents when only links of at least `threshold` are left, and of these the strongest, at most `most` in each
    group. Every link that is cut leaves one more cluster."""
    index = torch.arange(len(parents), device=parents.device)
    strengths = cosines.masked_fill(parents == index, -torch.inf)
    left = (strengths >= threshold) & (places_within(strengths, groups) < most[groups])
    return torch.where(left, parents, index)


def roots_of(parents: Int[Tensor, " visual"]) -> Int[Tensor, " visual"]:
    """Where following the links ends for each token; pointer jumping, so in the logarithm of the longest way."""
    while not torch.equal(further := parents[parents], parents):
        parents = further
    return parents


def cluster_means(
    values: Float[Tensor, "*rows visual"], roots: Int[Tensor, " visual"]
) -> Float[Tensor, "*rows visual"]:
    """At every root the mean of its cluster's values; 0 elsewhere."""
    sizes = roots.bincount(minlength=len(roots)).clamp(min=1)
    return torch.zeros_like(values).index_add(-1, roots, values) / sizes


def places_within(values: Float[Tensor, " visual"], groups: Int[Tensor, " visual"]) -> Int[Tensor, " visual"]:
    """How many of its group come before each token when the highest value is first; of equals the first is."""
    order = values.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    counts = groups.bincount()
    begins = (counts.cumsum(0) - counts)[groups[order]]
    return torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device) - begins)

"""Background Token Pruning's clustering (GeoLLaVA-8K, https://arxiv.org/abs/2505.21375), without its learned affinity.

Every visual token may be linked to one of its neighbours. Linked tokens form a cluster, which its root represents.
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
from tokenprune.tokens.attention import BLOCK_ELEMENTS
from tokenprune.tokens.cells import rank_within

#: One step (down, right) to the four neighbours that follow a token in raster order; the other four precede it.
AHEAD = ((0, 1), (1, -1), (1, 0), (1, 1))

# Features normalised at once: half a block, because the products of a band exist beside it.
BAND_ELEMENTS = BLOCK_ELEMENTS // 2


def link_neighbours(
    features: Float[Tensor, "visual width"], layout: Layout
) -> tuple[Int[Tensor, " visual"], Float[Tensor, " visual"]]:
    """Link each token to its most similar neighbour in the 3 x 3 window; return the links and their cosines.

    If two tokens are each other's best neighbour, the first is a root, linked to itself. So is a token without
    neighbours, with a cosine of -inf. Ties go to the first neighbour in raster order, which rules out longer cycles:
    every link joins two otherwise separate clusters.
    """
    regions = layout.regions().to(features.device)
    parents, cosines, start = [], [], 0
    for (rows, columns), grids in groupby(layout.grids, key=lambda grid: grid[1:]):
        # Rasters of one size are one block, so that tiles cost no loop.
        n_frames = sum(frames for frames, _, _ in grids)
        part = slice(start, start + n_frames * rows * columns)
        block = features[part].view(n_frames, rows, columns, -1)
        best, cosine = best_neighbours(block, regions[part].view(n_frames, rows, columns))
        parents.append(best + start)
        cosines.append(cosine)
        start = part.stop
    return torch.cat(parents), torch.cat(cosines)


def best_neighbours(
    features: Float[Tensor, "tiles rows columns width"], regions: Int[Tensor, "tiles rows columns"]
) -> tuple[Int[Tensor, " visual"], Float[Tensor, " visual"]]:
    """Link the tokens of equally sized rasters, one after the other, within their regions; see `link_neighbours`.

    Every raster must have regions of its own. Tokens of a negative region are not linked.
    """
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
    """Return the cosine of every token with its neighbour at each step in AHEAD; -inf where there is none.

    Computed in bands of rows, so that memory apart from the result does not grow with the raster. Detached, because
    the result only selects.
    """
    features = features.detach()
    n_rows, columns, width = features.shape
    result = features.new_full((4, n_rows, columns), -torch.inf, dtype=torch.float32)
    height = max(1, BAND_ELEMENTS // (columns * width))
    for top in range(0, n_rows, height):
        band = normalize(features[top : top + height + 1].float(), dim=-1)  # with the row below it
        for cosines, (down, right) in zip(result, AHEAD, strict=True):
            here = slice(max(0, -right), columns - max(0, right))
            there = slice(max(0, right), columns - max(0, -right))
            last = min(height, len(band) - down)
            products = torch.linalg.vecdot(band[:last, here], band[down : last + down, there])
            cosines[top : top + last, here] = products
    return result


def quantile_of_links(cosines: Float[Tensor, " visual"], quantile: float) -> Float[Tensor, ""]:
    """Return the quantile of the tokens' cosines to their best neighbours, ignoring tokens without neighbours."""
    return cosines.masked_fill(cosines == -torch.inf, torch.nan).nanquantile(quantile).reshape(())


def threshold_links(
    parents: Int[Tensor, " visual"],
    cosines: Float[Tensor, " visual"],
    threshold: float | Float[Tensor, ""],
    most: Int[Tensor, " groups"],
    groups: Int[Tensor, " visual"],
) -> Int[Tensor, " visual"]:
    """Remove links below `threshold`, and all except the `most` strongest of each group; return the parents.

    Every removed link adds one cluster.
    """
    index = torch.arange(len(parents), device=parents.device)
    strengths = cosines.masked_fill(parents == index, -torch.inf)
    joins = (strengths >= threshold) & (rank_within(strengths, groups) < most[groups])
    return torch.where(joins, parents, index)


def find_roots(parents: Int[Tensor, " visual"]) -> Int[Tensor, " visual"]:
    """Follow the links from each token to its root, by pointer jumping: logarithmic in the longest path."""
    while not torch.equal(further := parents[parents], parents):
        parents = further
    return parents


def cluster_means(
    values: Float[Tensor, "*rows visual"], roots: Int[Tensor, " visual"]
) -> Float[Tensor, "*rows visual"]:
    """Return the mean of each cluster's values at its root, and 0 elsewhere."""
    sizes = roots.bincount(minlength=len(roots)).clamp(min=1)
    return torch.zeros_like(values).index_add(-1, roots, values) / sizes

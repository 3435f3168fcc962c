"""Cells of the grid of visual tokens, and the choice of the best tokens within each: Nüwa's first stage
(https://arxiv.org/abs/2602.02951)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.tokens.layout import Layout


def grid_cells(layout: Layout, side: float) -> tuple[Int[Tensor, " visual"], int]:
    """Return the index of each visual token's square cell, `side` tokens wide, and the number of cells. Some are empty
    where tokens have been dropped.

    Cells are numbered consecutively across frames and rasters.
    """
    parts, n_cells = [], 0
    for frames, height, width in layout.grids:
        places = (torch.arange(length, dtype=torch.float32, device="cpu") for length in (height, width))
        down, across = ((place / side).floor().long() for place in places)
        per_row = int(across[-1]) + 1
        of_frame = down[:, None] * per_row + across
        n_frame = int(of_frame[-1, -1]) + 1
        parts.append((n_cells + n_frame * torch.arange(frames, device="cpu")[:, None, None] + of_frame).flatten())
        n_cells += frames * n_frame
    cells = torch.cat(parts)
    return cells if layout.left is None else cells[layout.left.cpu()], n_cells


def selection_cells(layout: Layout, side: int) -> Int[Tensor, " visual"]:
    """Return the index of each visual token's cell of side x side tokens.

    Cells never reach across frames or rasters, and the last ones of a row or column may be smaller. Newline tokens have
    cells of their own, with as many tokens: otherwise each would displace the patches beside it.
    """
    cells, n_cells = grid_cells(layout, float(side))
    if layout.newlines is not None:
        newlines = layout.newlines.to(cells.device)
        raster = layout.coordinates()[:, 0]
        for i in raster.unique().tolist():
            here = (newlines & (raster == i)).nonzero()[:, 0]
            cells[here] = n_cells + torch.arange(len(here), device="cpu") // side**2
            n_cells += -(-len(here) // side**2)
    return cells


def cell_side(n_kept: int, n_visual: int) -> int:
    """Return the side of the cells for a budget: the largest whose square is at most the number of visual tokens per
    kept one, but at least 2. At 25 % it is 2, at 10 % 3, and at 5 % 4. Smaller cells at the edges are ignored: with
    them, a larger side may also give as many cells as tokens to keep."""
    return max(2, int((n_visual / n_kept) ** 0.5))


def order_by_cell(scores: Float[Tensor, " n"], cells: Int[Tensor, " n"], n_kept: int) -> Int[Tensor, " n"]:
    """Order tokens by score, with the best of each cell before all others.

    The best of a cell are as few as can fill the budget: its best token, or its best two, and so on. The other tokens
    follow by their ranks in their cells. Among equal scores, the first token is best.
    """
    rank = rank_within(scores, cells)
    n_of_rank = torch.zeros_like(rank).index_add(0, rank, torch.ones_like(rank))
    last = (n_of_rank.cumsum(0) < n_kept).sum()  # the worst rank in a cell that the budget needs
    later = (rank - last).clamp(min=0)
    order = scores.argsort(descending=True, stable=True)
    return order[later[order].argsort(stable=True)]


def rank_within(values: Float[Tensor, " n"], groups: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return each token's rank within its group, from 0 for the highest value. Ties go to the first token."""
    order = values.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    counts = groups.bincount()
    begins = (counts.cumsum(0) - counts)[groups[order]]
    return torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device) - begins)

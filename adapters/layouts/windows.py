"""Windows of visual tokens, and images whose visual tokens the model has window by window, as its vision tower does."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.tokens.layout import Layout, square_means


def window_order(grids: Int[Tensor, "images 3"], merge: int, side: int) -> Int[Tensor, " visual"]:
    """The visual tokens in the order of windows of at most side x side tokens."""
    orders, start = [], 0
    for n_frames, height, width in grids.tolist():
        places = torch.cartesian_prod(*map(torch.arange, (n_frames, height // merge, width // merge)))
        windows = (places // torch.tensor([1, side, side])).unique(dim=0, return_inverse=True)[1]
        orders.append(start + windows.argsort(stable=True))
        start += len(places)
    return torch.cat(orders).to(grids.device)


def windows_layout(n_frames: int, height: int, width: int, merge: int, side: int) -> Layout:
    """The layout of one image or video of height x width patches, merge x merge of which become a visual token. Each
    window of at most side x side visual tokens is a raster; a frame is a tile."""
    rows, columns = height // merge, width // merge
    windows = [(1, rows_of, columns_of) for rows_of in lengths(rows, side) for columns_of in lengths(columns, side)]
    order = window_order(torch.tensor([[n_frames, height, width]], device="cpu"), merge, side)
    frames = torch.arange(n_frames, device="cpu").repeat_interleave(rows * columns) if n_frames > 1 else None
    to_tokens = partial(window_means, height=height, width=width, merge=merge, order=order)
    return Layout(tuple(windows) * n_frames, n_frames, to_tokens, frames, frame=frames)


def lengths(total: int, side: int) -> list[int]:
    """The lengths of the windows along an axis; the last may be shorter."""
    return [min(side, total - start) for start in range(0, total, side)]


def window_means(
    values: Float[Tensor, "frames patches"], height: int, width: int, merge: int, order: Int[Tensor, " visual"]
) -> Float[Tensor, " visual"]:
    """Average the patches of every visual token; the visual tokens are in this order."""
    means = torch.cat([square_means(frame[None], height, width, merge) for frame in values])
    return means[order.to(means.device)]

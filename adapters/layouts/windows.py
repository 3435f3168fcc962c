"""Images whose visual tokens the model has window by window, as its vision tower does."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.adapters.towers.qwen import window_order
from tokenprune.tokens.layout import Layout, square_means


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

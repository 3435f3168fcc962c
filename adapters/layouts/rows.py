"""Images whose rows end with a newline token, possibly with a token before the first row and one after the last."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.tokens.layout import Layout


def framed_rows(inner: Layout) -> Layout:
    """Add these tokens to the layout of an image without them. They are treated as newline tokens."""
    _, height, width = inner.grid
    newlines = torch.ones(height * (width + 1) + 2, dtype=torch.bool, device="cpu")
    newlines[1:-1].view(height, width + 1)[:, :-1] = False
    to_tokens = partial(to_tokens_with_frame, inner=inner)
    return Layout(((1, 1, 1), (1, height, width + 1), (1, 1, 1)), inner.n_tiles, to_tokens, newlines=newlines)


def to_tokens_with_frame(values: Float[Tensor, "tiles patches"], inner: Layout) -> Float[Tensor, " visual"]:
    """A newline token stands for its row, and those at the ends for the whole image: they get the highest value."""
    _, height, _ = inner.grid
    rows = inner.to_tokens(values).view(height, -1)
    ended = torch.cat([rows, rows.amax(1, keepdim=True)], 1).flatten()
    end = ended.amax(0, keepdim=True)
    return torch.cat([end, ended, end])


def ended_rows(inner: Layout, n_frames: int) -> Layout:
    """The layout of so many frames, each a tile, from that of a frame without newline tokens."""
    _, height, width = inner.grid
    newlines = (torch.arange(n_frames * height * (width + 1), device="cpu") + 1) % (width + 1) == 0
    frame = Layout(((1, height, width + 1),), to_tokens=partial(to_tokens_with_newlines, inner=inner))
    frames = Layout.concat([frame] * n_frames) if n_frames > 1 else frame
    return replace(frames, grids=((n_frames, height, width + 1),), newlines=newlines)


def to_tokens_with_newlines(values: Float[Tensor, "one patches"], inner: Layout) -> Float[Tensor, " visual"]:
    """A newline token gets the highest value of its row."""
    rows = inner.to_tokens(values).unflatten(0, (inner.grid[1], -1))
    return torch.cat([rows, rows.amax(1, keepdim=True)], 1).flatten()

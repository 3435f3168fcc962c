"""Images and videos with a newline token at the end, or after every row, and possibly a token before the first row."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.layouts.frames import ToTokens, video_layout
from tokenprune.tokens.layout import Layout


def rows_with_delimiters(inner: Layout) -> Layout:
    """Add a newline token to every row of an image's layout, and one token before the first row and one after the last,
    which are treated as newline tokens too."""
    _, height, width = inner.grid
    newlines = torch.ones(height * (width + 1) + 2, dtype=torch.bool, device="cpu")
    newlines[1:-1].view(height, width + 1)[:, :-1] = False
    to_tokens = partial(to_tokens_with_delimiters, inner=inner)
    return Layout(((1, 1, 1), (1, height, width + 1), (1, 1, 1)), inner.n_tiles, to_tokens, newlines=newlines)


def to_tokens_with_delimiters(values: Float[Tensor, "tiles patches"], inner: Layout) -> Float[Tensor, " visual"]:
    """A newline token stands for its row, and the two at the ends for the whole image: each gets the highest value."""
    _, height, _ = inner.grid
    rows = inner.to_tokens(values).view(height, -1)
    ended = append_maximum(append_row_maxima(rows))
    return torch.cat([ended[-1:], ended])


def rows_with_newlines(inner: Layout, n_frames: int) -> Layout:
    """The layout of `n_frames` frames, each a tile, from the layout of a frame without newline tokens."""
    _, height, width = inner.grid
    newlines = (torch.arange(n_frames * height * (width + 1), device="cpu") + 1) % (width + 1) == 0
    frame = Layout(((1, height, width + 1),), to_tokens=partial(to_tokens_with_newlines, inner=inner))
    return replace(video_layout([frame] * n_frames), newlines=newlines)


def to_tokens_with_newlines(values: Float[Tensor, "one patches"], inner: Layout) -> Float[Tensor, " visual"]:
    """A newline token gets the highest value of its row."""
    rows = inner.to_tokens(values).unflatten(0, (inner.grid[1], -1))
    return append_row_maxima(rows)


def ended_by_newline(layout: Layout) -> Layout:
    """Append one newline token, which belongs to the last tile."""
    return Layout(
        (*layout.grids, (1, 1, 1)),
        layout.n_tiles,
        partial(to_tokens_with_end, to_tokens=layout.to_tokens),
        None if layout.tiles is None else torch.cat([layout.tiles, layout.tiles[-1:]]),
        torch.arange(layout.n_visual + 1, device="cpu") == layout.n_visual,
    )


def to_tokens_with_end(values: Float[Tensor, "tiles patches"], to_tokens: ToTokens) -> Float[Tensor, " visual"]:
    """The newline token at the end stands for the whole image, so it gets the highest value."""
    return append_maximum(to_tokens(values))


def append_row_maxima(rows: Float[Tensor, "rows columns"]) -> Float[Tensor, " visual"]:
    """Append to every row its highest value, for the newline token."""
    return torch.cat([rows, rows.amax(1, keepdim=True)], 1).flatten()


def append_maximum(values: Float[Tensor, " visual"]) -> Float[Tensor, " more"]:
    """Append the highest value, for a separator."""
    return torch.cat([values, values.amax(0, keepdim=True)])

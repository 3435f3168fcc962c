"""Images and videos that repeat one raster, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout, one_to_one

ToTokens = Callable[[Float[Tensor, "tiles patches"]], Float[Tensor, " visual"]]


def frames_layout(n_frames: int, height: int, width: int, to_tokens: ToTokens = one_to_one) -> Layout:
    """The layout of frames of height x width visual tokens; each is a tile."""
    tiles = torch.arange(n_frames, device="cpu").repeat_interleave(height * width)
    return Layout(((n_frames, height, width),), n_frames, to_tokens, tiles if n_frames > 1 else None)


def video_layout(frames: Sequence[Layout]) -> Layout:
    """The layout of a video, in one raster, from the layouts of its frames, each of which is a tile."""
    if len(frames) == 1:
        return frames[0]
    _, height, width = frames[0].grid
    return replace(Layout.concat(frames), grids=((len(frames), height, width),))


def frame_pairs(n_frames: int, frame: Layout) -> Layout:
    """The layout of a video whose visual tokens are each merged from two frames like `frame`; a single frame is an
    image. A pair is one tile of visual tokens, and gets the mean of the maps over its two frames."""
    if n_frames == 1:
        return frame
    n_pairs, (_, height, width) = n_frames // 2, frame.grid
    tiles = torch.arange(n_pairs, device="cpu").repeat_interleave(height * width)
    to_tokens = partial(to_tokens_of_pairs, frame=frame)
    return Layout(((n_pairs, height, width),), n_frames, to_tokens, tiles if n_pairs > 1 else None)


def to_tokens_of_pairs(values: Float[Tensor, "frames patches"], frame: Layout) -> Float[Tensor, " visual"]:
    """Map to visual tokens that each cover two frames: the mean over both."""
    of_frames = torch.stack([frame.to_tokens(value[None]) for value in values])
    return of_frames.unflatten(0, (-1, 2)).mean(1).flatten()


def video_pixels(modality: Modality, arguments: Mapping[str, Any]) -> Float[Tensor, "videos frames channels h w"]:
    """Return the videos in a call of their encoding function, whose argument was called pixel_values up to 5.1x."""
    return arguments[modality.pixels if modality.pixels in arguments else "pixel_values"]

"""The frames of a video among its visual tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tokenprune.selection import split
from tokenprune.tokens.layout import Layout


@dataclass(frozen=True, eq=False)
class Frames:
    """The visual tokens of a video, frame by frame, and its other tokens.

    A frame is one time step of what the language model sees. If a model merges frames before it, as Qwen-VL merges
    pairs, a merged pair is one frame here.

    frame_tokens: the visual tokens of each frame in raster order, so that a column shows one place at all times.
    extra_tokens: the visual tokens that show no place: newline tokens, and a frame's CLS token if it has one.
    """

    frame_tokens: Int[Tensor, "frames places"]
    extra_tokens: Int[Tensor, " extra"]

    @classmethod
    def of(cls, layout: Layout, device: torch.device | None = None) -> Frames | None:
        """The frames of a layout; None for an image, and for a video of one frame, in which nothing changes."""
        frame = frame_of_tokens(layout)
        if frame is None or (n_frames := int(frame.max()) + 1) < 2:
            return None
        tokens = (frame >= 0).nonzero().view(n_frames, -1)
        return cls(tokens.to(device), (frame < 0).nonzero()[:, 0].to(device))

    @property
    def n_frames(self) -> int:
        return self.frame_tokens.shape[0]

    @property
    def n_places(self) -> int:
        """The number of places that each frame shows."""
        return self.frame_tokens.shape[1]

    def each(self, features: Float[Tensor, "visual width"]) -> Iterator[Float[Tensor, "places width"]]:
        """Yield the features of one frame after the other in float32, detached. A long video is never copied whole."""
        for tokens in self.frame_tokens:
            yield features[tokens].detach().float()

    def kept_extra_tokens(self, n_kept: int) -> Int[Tensor, " kept"]:
        """Return the extra tokens that a budget of `n_kept` keeps: all of them, as published code does, but at most
        half of the budget, evenly spaced."""
        count = min(len(self.extra_tokens), n_kept // 2)
        ends = list(accumulate(split(len(self.extra_tokens), [1] * count)))
        return self.extra_tokens[[end - 1 for end in ends]] if count else self.extra_tokens[:0]


def frame_of_tokens(layout: Layout) -> Int[Tensor, " visual"] | None:
    """Return the frame of each visual token, -1 for extra tokens; None if the layout is not of a video.

    The frames are those that the layout names, or else those of its only raster with several frames.
    """
    frame = layout.frame
    if frame is None:
        moving = [raster for raster, (steps, _, _) in enumerate(layout.grids) if steps > 1]
        if len(moving) != 1:
            return None
        places = layout.coordinates()
        frame = places[:, 1].masked_fill(places[:, 0] != moving[0], -1)
    return frame if layout.newlines is None else frame.masked_fill(layout.newlines.cpu(), -1)

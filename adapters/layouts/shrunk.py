"""Smaller versions of images: which grid fits a budget, and the pixels that fill it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from tokenprune.errors import PruningError
from tokenprune.tokens.layout import Grid3


@dataclass(frozen=True, eq=False)
class ShrunkArguments:
    """The arguments of an encoding function for smaller images, and the height and width of each in pixels."""

    arguments: dict[str, Any]
    sizes: list[tuple[int, int]]


def shrunk_grid(grid: Grid3, n_kept: int) -> Grid3:
    """The largest grid of at most `n_kept` visual tokens into which an image, or every frame of a video, can be shrunk.

    Its rows and columns are those of `grid` times one factor, each rounded to the nearest, as processors round. Among
    equally large ones, the grid with the most similar aspect ratio. Raises PruningError if there is none: where the
    shorter side would be less than half a token, or frames outnumber the budget.
    """
    frames, height, width = grid
    if frames * height * width <= n_kept:
        return grid
    found = []
    for rows in range(1, height + 1):
        # A factor from (rows - 1/2) / height to just below (rows + 1/2) / height gives so many rows.
        least = ((2 * rows - 1) * width + height) // (2 * height)
        most = -(-((2 * rows + 1) * width + height) // (2 * height)) - 1
        columns = min(most, width, n_kept // (frames * rows))
        if columns >= max(1, least):
            found.append((rows * columns, -abs(rows * width - columns * height) / (rows * width), rows, columns))
    if not found:
        images = f"a video of {frames} frames with {height} x {width}" if frames > 1 else f"{height} x {width}"
        raise PruningError(
            f"no image with the aspect ratio of {images} visual tokens has at most {n_kept}: its shorter side would be "
            f"less than half a token. Keep more visual tokens, crop the image{', or pass fewer frames' * (frames > 1)}."
        )
    _, _, rows, columns = max(found)
    return frames, rows, columns


def resized(pixels: Float[Tensor, "n channels height width"], height: int, width: int) -> Tensor:
    """The images in another size: bicubic with antialiasing, as most processors resize, and like theirs without values
    beyond those of the image."""
    low, high = pixels.amin((-2, -1), keepdim=True), pixels.amax((-2, -1), keepdim=True)
    small = interpolate(pixels.float(), (height, width), mode="bicubic", antialias=True).to(pixels.dtype)
    return small.clamp(low, high)

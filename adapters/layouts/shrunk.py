"""Smaller versions of images: which grid fits a budget, and the pixels that fill it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from tokenprune.encoded import Modality
from tokenprune.errors import PruningError
from tokenprune.tokens.layout import Grid3, Layout


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
    fitting = []
    for rows in range(1, height + 1):
        # A factor from (rows - 1/2) / height to just below (rows + 1/2) / height gives so many rows.
        least = ((2 * rows - 1) * width + height) // (2 * height)
        most = -(-((2 * rows + 1) * width + height) // (2 * height)) - 1
        columns = min(most, width, n_kept // (frames * rows))
        if columns >= max(1, least):
            fitting.append((rows * columns, -abs(rows * width - columns * height) / (rows * width), rows, columns))
    if not fitting:
        images = f"a video of {frames} frames with {height} x {width}" if frames > 1 else f"{height} x {width}"
        raise PruningError(
            f"no image with the aspect ratio of {images} visual tokens has at most {n_kept}: its shorter side would be "
            f"less than half a token. Keep more visual tokens, crop the image{', or pass fewer frames' * (frames > 1)}."
        )
    _, _, rows, columns = max(fitting)
    return frames, rows, columns


def resized(pixels: Float[Tensor, "n channels height width"], height: int, width: int) -> Tensor:
    """The images in another size: bicubic with antialiasing, as most processors resize, and like theirs without values
    beyond those of the image."""
    low, high = pixels.amin((-2, -1), keepdim=True), pixels.amax((-2, -1), keepdim=True)
    small = interpolate(pixels.float(), (height, width), mode="bicubic", antialias=True).to(pixels.dtype)
    return small.clamp(low, high)


def shrunk_row(
    modality: Modality,
    arguments: Mapping[str, Any],
    budgets: Sequence[int],
    layouts: Sequence[Layout],
    patch: int,
    folded: bool,
) -> ShrunkArguments:
    """Shrink images or videos whose patches come in one row, with the grid of each: put the patches of every frame
    together, resize it, and cut it again.

    patch: the side of a patch in pixels; `folded`: whether the patches of a visual token are adjacent in the row, which
    has every frame in raster order otherwise.
    """
    pixels, name = arguments[modality.pixels], f"{modality.name}_grid_thw"
    grids, parts, sizes = arguments[name].tolist(), [], []
    joined = "(t row column m n) (rest y x) -> t rest (row m y) (column n x)"
    cut = "t rest (row m y) (column n x) -> (t row column m n) (rest y x)"
    row = pixels.split([frames * height * width for frames, height, width in grids])
    for i, (part, layout, budget) in enumerate(zip(row, layouts, budgets, strict=True)):
        (frames, height, _), whole, small = grids[i], layout.grid, shrunk_grid(layout.grid, budget)
        merge = height // whole[1]
        n_patches = [side * merge for side in small[1:]]
        sizes.append((n_patches[0] * patch, n_patches[1] * patch))
        if small != whole:
            fold = merge if folded else 1
            sides = {"t": frames, "m": fold, "n": fold, "y": patch, "x": patch}
            images = rearrange(part.flatten(1), joined, row=height // fold, **sides)
            cells = rearrange(resized(images, *sizes[-1]), cut, row=n_patches[0] // fold, **sides)
            part, grids[i] = cells.view(-1, *part.shape[1:]), [frames, *n_patches]
        parts.append(part)
    if all(part is whole for part, whole in zip(parts, row, strict=True)):  # nothing to copy
        return ShrunkArguments(dict(arguments), sizes)
    small_grids = arguments[name].new_tensor(grids)
    return ShrunkArguments({**arguments, modality.pixels: torch.cat(parts), name: small_grids}, sizes)


#: Why smaller images do not fit a language model with windows, chunks or an indexer.
WINDOWED = "its language model attends within windows, which would count the tokens of the image as it was passed"


class Shrinks:
    """Which smaller images does the model encode?"""

    #: Why `shrink` is not defined, or wrong for this model's tower or prompts; None if it is right.
    unshrunk: str | None = "its adapter does not know how to make them"
    #: Whether position IDs continue after a video above its times, where these are higher than its rows and columns.
    continues_above_time: bool = False

    def shrink(self, modality: Modality, arguments: Mapping[str, Any], budgets: Sequence[int]) -> ShrunkArguments:
        """The arguments of the modality's encoding function for smaller versions of its images, each with at most as
        many visual tokens as its budget. An image that fits stays as it is. Raises PruningError for one that cannot be
        shrunk so far."""
        raise NotImplementedError(f"{type(self).__name__} sets unshrunk = None: define shrink too.")

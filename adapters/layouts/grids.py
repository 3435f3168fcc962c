"""Grids and pixels of images whose tower is unknown, from the arguments of the function that encodes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Grid3


def grid_argument(modality: Modality) -> str:
    """The argument with (frames, rows, columns) of every image, in patches, in models that take images of any size."""
    return f"{modality.name}_grid_thw"


def grids_of(
    modality: Modality, arguments: Mapping[str, Any], counts: Sequence[int], merge: int | None
) -> list[Grid3] | None:
    """Return the grid of every image in visual tokens, `merge` x `merge` patches each; None if the arguments have no
    grids, or grids that do not agree with the `counts` of visual tokens."""
    patches = arguments.get(grid_argument(modality))
    if patches is None or merge is None:
        return None
    grids = [(n_frames, rows // merge, columns // merge) for n_frames, rows, columns in patches.tolist()]
    return grids if [t * h * w for t, h, w in grids] == list(counts) else None


def image_pixels(
    modality: Modality, arguments: Mapping[str, Any], n_images: int
) -> list[Float[Tensor, "channels height width"]]:
    """Return the pixels of every image as the model takes them: one channel with a patch per row, or all channels of
    all tiles."""
    pixels, grids = arguments[modality.pixels], arguments.get(grid_argument(modality))
    if grids is not None and int(grids.prod(-1).sum()) == len(pixels):
        parts = pixels.split(grids.prod(-1).tolist())
    else:
        tiles = pixels.flatten(0, 1) if pixels.ndim == 5 and len(pixels) != n_images else pixels
        parts = tiles.tensor_split(n_images)
    return [part.reshape(-1, *part.shape[-2:]) for part in parts]

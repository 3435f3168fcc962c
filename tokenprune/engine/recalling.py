"""Finds the records of a call's images again, once the vision tower has encoded them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from tokenprune.encoded import EncodedImage
from tokenprune.errors import PruningError

#: The record travels on the encoder's own output object, because `generate` encodes the images before it calls the
#: model, and may repeat the features for beams in between.
RECORD_ATTRIBUTE = "tokenprune_record"


def recall_images(output: Any, visual: Bool[Tensor, "batch length"]) -> list[EncodedImage]:
    """Return the images of an encoding function's output, once per use, in reading order of the `visual` columns. The
    list is empty if `output` is None, because the images come as pixels.

    Raises PruningError for an output without a record.
    """
    if output is None:
        return []
    images: list[EncodedImage] | None = getattr(output, RECORD_ATTRIBUTE, None)
    if images is None:
        raise PruningError(
            "the images were encoded outside this patch, or split into chunks, so nothing is known about their tokens. "
            "Pass pixel_values, or encode after patch(); in generate() leave out prefill_chunk_size."
        )
    return in_rows(images, visual.sum(1).tolist())


def in_rows(images: Sequence[EncodedImage], counts: Sequence[int]) -> list[EncodedImage]:
    """Return `images`, once per use, in rows with `counts` visual tokens each: `generate` repeats every row for its
    beams, one after the other, together with the features of the row's images."""
    sizes = [image.layout.n_visual for image in images]
    times = max(1, sum(counts) // max(1, sum(sizes)))
    used, start = [], 0
    for count in counts[::times]:
        stop = start
        while stop < len(images) and sum(sizes[start:stop]) < count:
            stop += 1
        used += [*images[start:stop]] * times
        start = stop
    return [*used, *images[start:]]  # a mismatch is reported where images and columns are compared

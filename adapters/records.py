"""How encoded images find their way to the model call that uses them.

`generate` may encode images before it calls the model, so their record travels on the output object of the function
that encoded them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from tokenprune.errors import PruningError
from tokenprune.tokens.encoded import RECORD_ATTRIBUTE, EncodedImage


def remember_images(output: Any, images: list[EncodedImage]) -> None:
    """Attach the images to the output of the function that encoded them."""
    setattr(output, RECORD_ATTRIBUTE, images)


def recall_images(output: Any, visual: Bool[Tensor, "batch length"]) -> list[EncodedImage]:
    """Return the images of an encoding function's output, one per use, in reading order of the `visual` columns; none
    if `output` is None, because the images come as pixels.

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
    times = max(1, sum(counts) // max(1, sum(image.n_visual for image in images)))
    waiting, used = deque(images), []
    for count in counts[::times]:
        row: list[EncodedImage] = []
        while waiting and sum(image.n_visual for image in row) < count:
            row.append(waiting.popleft())
        used += row * times
    return used + list(waiting)  # a mismatch is reported where images and columns are compared

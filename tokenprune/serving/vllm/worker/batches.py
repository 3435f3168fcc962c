"""Which images of a step the vision tower gets at once: no more visual tokens than vLLM measured memory for.

vLLM batches the images of all requests by their tokens in the prompts. Pruned images have few, so it would give the
tower many times as many images as when it measured the tower's memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from torch import Tensor


def image_batches(n_visual: Sequence[int], most: int, sizes: Sequence[Any] | None = None) -> list[slice]:
    """Cut images of `n_visual` tokens each into consecutive batches of at most `most` tokens; an image with more is a
    batch of its own. With `sizes`, all images of a batch have the same."""
    batches: list[slice] = []
    begin = total = 0
    for i, n in enumerate(n_visual):
        if i > begin and (total + n > most or (sizes is not None and sizes[i] != sizes[begin])):
            batches.append(slice(begin, i))
            begin, total = i, 0
        total += n
    return [*batches, slice(begin, len(n_visual))]


def arguments_of(
    arguments: Mapping[str, Any], n_images: int, images: slice, rows: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Return the part of a call's arguments that belongs to some of its images.

    rows: the number of rows per image, for arguments that hold the rows of all images in sequence. Other arguments are
        cut if they have one entry per image, and shared if not.
    """
    of_images: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in rows and isinstance(value, Tensor):
            places = [0, *accumulate(rows[name])]
            of_images[name] = value[places[images.start] : places[images.stop]]
        elif isinstance(value, Sequence | Tensor) and not isinstance(value, str) and _length(value) == n_images:
            of_images[name] = value[images]
        else:
            of_images[name] = value
    return of_images


def one_of(arguments: Mapping[str, Any], n_images: int, image: int) -> dict[str, Any]:
    """Return what a call's arguments say about one of its images, of those that have one entry per image."""
    lists = {name: value for name, value in arguments.items() if isinstance(value, Sequence | Tensor)}
    return {name: value[image] for name, value in lists.items() if _length(value) == n_images}


def _length(value: Sequence[Any] | Tensor) -> int | None:
    """None for a tensor that holds a single number."""
    return len(value) if not isinstance(value, Tensor) or value.ndim else None

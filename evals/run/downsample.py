"""Shrink the image until it gives about the same number of visual tokens: a baseline that prunes nothing.

A LLaVA-1.5 style model resizes every image to the same size, so shrinking the file alone would change nothing. Instead
its processor is called with a smaller target size (the prompt then has one placeholder token per patch of the smaller
image), and the vision tower interpolates its position embeddings to that size, which CLIP, SigLIP and DINOv2 support.
The position IDs are those of the shorter prompt. The model was not trained on that grid and may answer worse for that
reason alone, which is part of the cost of this baseline.

`at_size` does the same to every setup of a run, so that all are compared at another resolution.
"""

import copy
import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tokenprune.adapters.record import records
from tokenprune.errors import SettingError, UnsupportedError
from tokenprune.evals.models.image_view import padding, views_of
from tokenprune.selection import budget

LEAVE_OUT = "leave out --image-size and the baseline downsample"


def processor_options(processor: Any, keep_ratio: float) -> dict[str, Any]:
    """Return the options with which `processor` gives the grid nearest to `keep_ratio` of its visual tokens.

    The grid keeps its aspect ratio, so the count is near the budget but seldom equal to it.
    """
    rows, columns = shrunk_grid(processor, keep_ratio)
    return _options(processor, rows * processor.patch_size, columns * processor.patch_size)


def at_size(processor: Any, height: int, width: int) -> Any:
    """Return a copy of `processor` that resizes images to another size, for a model that takes any.

    This changes the number of visual tokens in its prompts, and prunes nothing. A processor that keeps the shape of
    images gives all about as many pixels; one that cuts them into tiles, as many tiles. UnsupportedError if it has none
    of these sizes, SettingError if its patches, or tiles, do not fill the new one.
    """
    images, resized = processor.image_processor, copy.deepcopy(processor)
    if "resized" in views_of(images):
        _check_filled(height, width, images.patch_size * images.merge_size)
        resized.image_processor.size = type(images.size)(shortest_edge=height * width, longest_edge=height * width)
        return resized
    if hasattr(images, "min_patches"):
        tile = images.size.height
        _check_filled(height, width, tile)
        resized.image_processor.min_patches = resized.image_processor.max_patches = height * width // tile**2
        return resized
    full_grid(processor)
    _check_filled(height, width, processor.patch_size)
    for name, size in _options(processor, height, width).items():
        setattr(resized.image_processor, name, type(getattr(resized.image_processor, name))(**size))
    return resized


def _check_filled(height: int, width: int, cell: int) -> None:
    if min(height, width) < 1 or height % cell or width % cell:
        fitting = " ".join(str(max(1, round(side / cell)) * cell) for side in (height, width))
        raise SettingError(f"{height} x {width} pixels are not whole patches of {cell}. Write --image-size {fitting}")


def as_asked(processor: Any, image_size: Sequence[int] | None, pad: bool) -> Any:
    """Return the processor of a run with these arguments of `evaluate`."""
    processor = padding(processor) if pad else processor
    return processor if image_size is None else at_size(processor, *image_size)


def _options(processor: Any, height: int, width: int) -> dict[str, Any]:
    size = {"height": height, "width": width}
    if not _crops(processor):
        return {"size": size}
    # The size and the crop change together, because a smaller crop alone would cut away most of the image.
    if processor.image_processor.size.get("shortest_edge") is None:
        return {"size": size, "crop_size": size}
    return {"size": {"shortest_edge": min(size.values())}, "crop_size": size}


def shrunk_grid(processor: Any, keep_ratio: float) -> tuple[int, int]:
    """Return rows and columns of the visual tokens that are left of an image."""
    rows, columns = full_grid(processor)
    return nearest_grid(rows, columns, budget(rows * columns, keep_ratio, None))


def full_grid(processor: Any) -> tuple[int, int]:
    """Return rows and columns of the visual tokens that `processor` makes of any image.

    UnsupportedError if images keep their own sizes, are cut into tiles, or do not get one visual token per patch.
    """
    kind, image_processor = type(processor), processor.image_processor
    resizable = {one.processor for one in records().values() if one.resizable}
    if not any(one.__name__ in resizable for one in kind.__mro__):
        raise UnsupportedError(
            f"{kind.__name__} does not make one visual token of each patch of an image, so no image size gives it a "
            f"certain number of them; {LEAVE_OUT}"
        )
    target = image_processor.crop_size if _crops(processor) else image_processor.size
    height, width = target.get("height"), target.get("width")
    if height is None or width is None:
        raise UnsupportedError(
            f"{type(image_processor).__name__} has no fixed image size, so no other size gives it a certain number of "
            f"visual tokens; {LEAVE_OUT}"
        )
    return height // processor.patch_size, width // processor.patch_size


def nearest_grid(rows: int, columns: int, n_kept: int) -> tuple[int, int]:
    """Return the grid of the same aspect ratio with the number of cells nearest to `n_kept`."""
    exact = rows * math.sqrt(n_kept / (rows * columns))
    candidates = [
        (new_rows, max(1, round(columns * new_rows / rows)))
        for new_rows in {max(1, math.floor(exact)), max(1, math.ceil(exact))}
    ]
    return min(candidates, key=lambda grid: abs(grid[0] * grid[1] - n_kept))


@contextmanager
def any_resolution(model: Any) -> Iterator[None]:
    """Let the vision tower of `model` take images of any size inside the block.

    UnsupportedError if accelerate offloads its position embeddings: transformers interpolates them without fetching.
    """
    tower = model.get_encoder(modality="image")
    if any(weight.is_meta for name, weight in tower.named_parameters() if "position_embedding" in name):
        raise UnsupportedError(
            "downsampling interpolates the vision tower's position embeddings, but accelerate has offloaded them; "
            "leave it out (--baselines unpruned random), or keep the tower on the device"
        )
    if "interpolate_pos_encoding" not in inspect.signature(tower.forward).parameters:
        yield  # DINOv2 always interpolates
        return
    hook = tower.register_forward_pre_hook(
        lambda _, args, kwargs: (args, kwargs | {"interpolate_pos_encoding": True}), with_kwargs=True
    )
    try:
        yield
    finally:
        hook.remove()


def _crops(processor: Any) -> bool:
    return bool(getattr(processor.image_processor, "do_center_crop", False))

"""The baseline that prunes nothing: the image is shrunk until it gives about as many visual tokens.

A LLaVA-1.5 style model resizes every image to one size, so shrinking the file alone would change nothing. Instead
its own processor is called with a smaller target size (the prompt then has as many placeholder tokens as the smaller
image has patches) and the vision tower interpolates its position embeddings to that size, which CLIP, SigLIP and
DINOv2 do when asked. The position IDs are those of the shorter prompt. The grid is one that the model was not trained
on, and it may answer worse for that alone; that is part of what this baseline costs.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenprune.errors import UnsupportedError
from tokenprune.selection import budget


def processor_options(processor: Any, keep_ratio: float) -> dict[str, Any]:
    """Return the options that make `processor` give the grid nearest to `keep_ratio` of its visual tokens.

    The aspect ratio of the grid is kept, so the count is near the budget and seldom equal to it.
    """
    rows, columns = full_grid(processor)
    rows, columns = nearest_grid(rows, columns, budget(rows * columns, keep_ratio, None))
    size = {"height": rows * processor.patch_size, "width": columns * processor.patch_size}
    if not _crops(processor):
        return {"size": size}
    # Resize and crop alike, or the crop would cut away most of the image.
    if processor.image_processor.size.get("shortest_edge") is None:
        return {"size": size, "crop_size": size}
    return {"size": {"shortest_edge": min(size.values())}, "crop_size": size}


def full_grid(processor: Any) -> tuple[int, int]:
    """Return rows and columns of the visual tokens that `processor` makes of any image."""
    image_processor = processor.image_processor
    target = image_processor.crop_size if _crops(processor) else image_processor.size
    height, width = target.get("height"), target.get("width")
    if height is None or width is None:
        raise UnsupportedError(
            f"{type(image_processor).__name__} has no fixed image size, so downsampling to a budget is not defined "
            "for it"
        )
    return height // processor.patch_size, width // processor.patch_size


def nearest_grid(rows: int, columns: int, n_kept: int) -> tuple[int, int]:
    """Return the grid of the same aspect ratio whose number of cells is nearest to `n_kept`."""
    exact = rows * math.sqrt(n_kept / (rows * columns))
    candidates = [
        (new_rows, max(1, round(columns * new_rows / rows)))
        for new_rows in {max(1, math.floor(exact)), max(1, math.ceil(exact))}
    ]
    return min(candidates, key=lambda grid: abs(grid[0] * grid[1] - n_kept))


@contextmanager
def any_resolution(model: Any) -> Iterator[None]:
    """Let the vision tower of `model` take images of any size inside the block.

    UnsupportedError where its position embeddings are kept elsewhere: transformers interpolates them unfetched.
    """
    tower = model.get_encoder(modality="image")
    if any(weight.is_meta for name, weight in tower.named_parameters() if "position_embedding" in name):
        raise UnsupportedError(
            "accelerate keeps the vision tower's position embeddings elsewhere, and downsampling interpolates them; "
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

"""Train on smaller images instead of fewer visual tokens: the baseline `downsample`, in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import tokenprune
from tokenprune.errors import SettingError
from tokenprune.evals.run.downsample import any_resolution, full_grid, shrunk_grid
from tokenprune.evals.run.setups import DOWNSAMPLE
from tokenprune.evals.storage.provenance import class_identity
from tokenprune.strategies.registry import changed_settings, name_of
from tokenprune.strategy import Strategy


@dataclass(frozen=True)
class Shrinking:
    """In place of a strategy: shrinks the images of a processor's batches until they fit the keep ratio.

    Like `downsample` in `eval`, but for images that are already as large as the tower expects: the batches of a
    training are made before the keep ratio of their step is known.
    """

    processor: Any
    keep_ratio: float
    needs = frozenset[str]()

    @contextmanager
    def applied_to(self, model: Any) -> Iterator[None]:
        """Within the block, calls of `model` with labels or without see the smaller images."""
        (rows, columns), full = shrunk_grid(self.processor, self.keep_ratio), full_grid(self.processor)
        size, n_fewer = (
            (rows * self.processor.patch_size, columns * self.processor.patch_size),
            prod(full) - rows * columns,
        )
        hook = model.register_forward_pre_hook(
            lambda _, args, kwargs: (args, _shrunk(kwargs, size, n_fewer, model.config.image_token_id)),
            with_kwargs=True,
        )
        try:
            with any_resolution(model):
                yield
        finally:
            hook.remove()


def applied(model: Any, strategy: Strategy | Shrinking, ratio: float) -> AbstractContextManager[Any]:
    """Apply a strategy, or shrink images, at a keep ratio."""
    if isinstance(strategy, Shrinking):
        return Shrinking(strategy.processor, ratio).applied_to(model)
    return tokenprune.patch(model, replace(strategy, keep_ratio=ratio, keep=None))


def identity_of(strategy: Strategy | Shrinking) -> dict[str, Any]:
    """Return what identifies the pruning, or the shrinking, of a training, besides its keep ratios."""
    if isinstance(strategy, Shrinking):
        return {"strategy": DOWNSAMPLE}
    return {"strategy": name_of(type(strategy)), "settings": changed_settings(strategy), **class_identity(strategy)}


def _shrunk(inputs: dict[str, Any], size: tuple[int, int], n_fewer: int, token: int) -> dict[str, Any]:
    """Return a model's inputs with every image resized and the last `n_fewer` of its placeholders removed.

    The position IDs are those of the shorter prompt. SettingError if the rows have different numbers of images.
    """
    ids, pixels = inputs["input_ids"], inputs["pixel_values"]
    placeholders = ids == token
    n_images = len(pixels) // len(ids)
    if not (placeholders.sum(1) * len(ids) == placeholders.sum()).all():
        raise SettingError("downsample: rows with different numbers of images cannot share a batch. Use --batch 1.")
    n_full = int(placeholders[0].sum()) // n_images
    kept = ~placeholders | ((placeholders.cumsum(1) - 1) % n_full < n_full - n_fewer)
    columns = kept.nonzero()[:, 1].view(len(ids), -1)
    small = {**inputs, "pixel_values": interpolate(pixels.float(), size, mode="bicubic", antialias=True).to(pixels)}
    for name in ("input_ids", "labels", "attention_mask", "position_ids"):
        value = inputs.get(name)
        if not isinstance(value, Tensor):
            continue
        if name == "position_ids":
            value = (value - (~kept).cumsum(1)).clamp_min(0)  # 0 in padding
        if value.ndim == 4:
            value = torch.stack([mask[:, own][:, :, own] for mask, own in zip(value, columns, strict=True)])
        else:
            value = value.gather(1, columns)
        small[name] = value
    return small

"""Image processor options in a request that would divide images into other patches or tiles than the model was trained
with: a failing vision tower ends the engine and everyone's requests. Does not load vLLM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from tokenprune.errors import SettingError

#: Processor options that say how pixels become patches, and patches visual tokens.
FIXED = frozenset(
    {
        "downsample_factor",
        "encoder_patch_size",
        "image_grid_pinpoints",
        "image_seq_len",
        "image_seq_length",
        "image_size",
        "merge_kernel_size",
        "merge_size",
        "num_image_feature_size",
        "num_patch_feature_size",
        "overlap_margins",
        "patch_size",
        "pooling_kernel_size",
        "pooling_size",
        "spatial_conv_size",
        "spatial_merge_size",
        "temporal_conv_size",
        "temporal_patch_size",
    }
)


def check_patch_options(options: Mapping[str, object], processor: Any) -> None:
    """Raise SettingError for request options, flat or for one modality, that give images or videos other patches than
    the model's own `processor` does."""
    modalities = {f"{name}.": part for name, part in options.items() if isinstance(part, Mapping)}
    for where, part in {"": options, **modalities}.items():
        video = where == "videos_kwargs." and hasattr(processor, "video_processor")
        own = getattr(processor, "video_processor" if video else "image_processor", processor)
        for name in sorted(FIXED.intersection(part)):
            fitting = getattr(own, name, getattr(processor, name, None))
            if part[name] != fitting:
                trained = "has no such setting" if fitting is None else f"was trained with {fitting!r}"
                raise SettingError(
                    f"mm_processor_kwargs: {where}{name}={part[name]!r} does not fit this model, which {trained}. "
                    f"Leave it out."
                )


def check_tiles(item: Mapping[str, Any], image_size: int | Iterable[int], options: Iterable[str]) -> None:
    """Raise SettingError for an item whose tiles, (..., 3, height, width), are not of the only size that the tower
    takes, given the names of the request's `options`."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    for field in item.values():
        pixels = getattr(field, "data", None)
        if isinstance(pixels, Tensor) and pixels.shape[-3:-2] == (3,) and pixels.shape[-2:] != (height, width):
            raise SettingError(
                f"mm_processor_kwargs: with {', '.join(sorted(options))}, a tile has {pixels.shape[-1]} x "
                f"{pixels.shape[-2]} pixels, but this model's vision tower takes {width} x {height}. Leave it out."
            )

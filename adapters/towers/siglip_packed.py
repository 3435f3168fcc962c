"""Vision towers made of SigLIP's layers that take the patches of all images in one sequence, frame after frame.

PaddleOCR-VL and HunyuanOCR keep the patches of a frame in raster order. In VideoLLaMA 3, the patches that become one
visual token are adjacent, and their number is given for each image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.towers.attention import RowAttention, attend_separate, project_separate, separate_points
from tokenprune.adapters.towers.qwen import assembled, by_frame, rotated_frames
from tokenprune.adapters.towers.row import PatchRow, raster
from tokenprune.adapters.towers.tower import CLIP_COLORS, HALVES, QueryKey, Tower, encoder_layers, projected_points
from tokenprune.encoded import CapturePoints


def packed_pixels(
    arguments: Mapping[str, Any], config: Any, merges: int | list[int] = 1
) -> list[Float[Tensor, "channels height width"]]:
    """Assemble every frame of a tower call from its patches."""
    patch = config.patch_size
    patches = arguments["pixel_values"].reshape(-1, config.num_channels, patch, patch)
    return assembled(patches, arguments["grid_thw"], merges)


def merge_sizes(arguments: Mapping[str, Any]) -> list[int]:
    """How many patches of each image in a call of VideoLLaMA 3's tower become one visual token, along each side."""
    return arguments["merge_sizes"].tolist()


def _raster_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    queries, keys = _projected(call, config)
    return tuple(by_frame(states, call["tower"]["grid_thw"], 1) for states in (queries, keys))


def _rotated_raster_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    return rotated_frames(*_projected(call, config), call, 1)


def _rotated_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    return rotated_frames(*_projected(call, config), call, merge_sizes(call["tower"]))


def _projected(call: Mapping[str, Any], config: Any) -> tuple[Tensor, Tensor]:
    """Queries and keys of all patches, (patches, heads, width); the images may be a batch of one sequence."""
    pattern, n_heads = "one patch (head width) -> (one patch) head width", config.num_attention_heads
    rows = (part if part.ndim == 3 else part[None] for part in (call["queries"], call["keys"]))
    queries, keys = (rearrange(row, pattern, head=n_heads) for row in rows)
    return queries, keys


def _paddle_output_modules(tower: Any) -> list[nn.Module]:
    return [getattr(tower, "vision_model", tower).post_layernorm]


def _paddle_points(layer: Any) -> CapturePoints:
    return separate_points(layer.self_attn)


PADDLE_TOWER = Tower(
    encoder_layers,
    projected_points,
    0,
    heads=_rotated_raster_heads,
    normalisation=CLIP_COLORS,
    row=PatchRow("pixel_values", raster, _paddle_output_modules),
    attention=RowAttention(_paddle_points, project_separate, attend_separate),
)
#: For images normalised as for SigLIP, as in Keye-VL and Isaac.
KEYE_TOWER = replace(PADDLE_TOWER, normalisation=HALVES)
HUNYUAN_TOWER = Tower(attrgetter("layers"), projected_points, 0, heads=_raster_heads, normalisation=CLIP_COLORS)
VIDEO_LLAMA_TOWER = Tower(encoder_layers, projected_points, 0, heads=_rotated_heads)

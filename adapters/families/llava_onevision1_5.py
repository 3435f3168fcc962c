"""LLaVA-OneVision 1.5: images and videos of any size; every frame has a CLS token in the tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from tokenprune.adapters.families.qwen_vl import Qwen2VLAdapter
from tokenprune.adapters.layouts.shrunk import Shrinks
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.attention import apply_rotary
from tokenprune.adapters.towers.qwen import QWEN2_TOWER, assembled, frames
from tokenprune.adapters.towers.row import PatchRow, Row, adjacent
from tokenprune.adapters.towers.tower import QueryKey


@register_adapter(
    "LlavaOnevision15ForConditionalGeneration",
    other_names=(r"\S+/LLaVA-OneVision-1\.5(?!\S*-hf)",),  # in the format of its authors' code
)
class LlavaOnevision15Adapter(Qwen2VLAdapter):
    """For LlavaOnevision15ForConditionalGeneration. Position IDs count tokens; a frame is a tile."""

    since = (5, 25)
    sequence_arguments = ("mm_token_type_ids",)
    unshrunk = Shrinks.unshrunk  # not tried

    def describe_tower(self) -> Tower:
        return TOWER

    def tile_pixels(self, arguments: Mapping[str, Any]) -> Sequence[Float[Tensor, "channels height width"]]:
        config = self.vision_tower.config
        patch = config.patch_size
        patches = arguments["pixel_values"].reshape(-1, config.in_channels, patch, patch)
        return assembled(patches, arguments["grid_thw"], config.spatial_merge_size)


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Return the rotated queries and keys of every frame: its CLS token, then its patches."""
    cos, sin = call["attention"]["position_embeddings"]
    pattern = "token (part head width) -> part token head width"
    queries, keys, _ = rearrange(call["qkv"], pattern, part=3, width=cos.shape[-1])
    grids, merge = call["tower"]["grid_thw"], config.spatial_merge_size
    return tuple(_by_frame(apply_rotary(states, cos, sin), grids, merge) for states in (queries, keys))


def _by_frame(
    row: Float[Tensor, "rows heads width"], grids: Int[Tensor, "images 3"], merge: int
) -> list[Float[Tensor, "heads frame_rows width"]]:
    sizes = [1 + height * width for n_frames, height, width in grids.tolist() for _ in range(n_frames)]
    parts = row.split(sizes)
    in_raster = frames(torch.cat([part[1:] for part in parts]), grids, merge)
    whole = [torch.cat([part[:1], patches]) for part, patches in zip(parts, in_raster, strict=True)]
    return [rearrange(frame, "token head width -> head token width") for frame in whole]


def row_with_cls(grids: Int[Tensor, "images 3"], config: Any) -> Row:
    """The row of a tower in which the patches of a visual token are adjacent, and a CLS token begins every frame."""
    return replace(adjacent(grids, config), n_prefix=1)


def _last_layer(tower: Any) -> list[nn.Module]:
    """The module after which the tower expects all patches: it removes the CLS tokens without a module."""
    return [tower.blocks[-1]]


TOWER = replace(QWEN2_TOWER, n_prefix=1, heads=heads, row=PatchRow("pixel_values", row_with_cls, _last_layer))

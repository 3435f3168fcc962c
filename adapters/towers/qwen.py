"""The vision towers of Qwen-VL: the patches of all images in one sequence, attention within frames or windows.

In the sequence, the merge x merge patches of a visual token are adjacent. The functions here return one frame after the
other, each in raster order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from tokenprune.adapters.layouts.frames import video_layout
from tokenprune.adapters.layouts.windows import window_order
from tokenprune.adapters.towers.attention import JOINT, apply_rotary
from tokenprune.adapters.towers.row import PatchRow, Row, adjacent
from tokenprune.adapters.towers.tower import CLIP_COLORS, HALVES, QueryKey, Tower, norms
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.tokens.layout import Layout


def layout(n_frames: int, height: int, width: int, merge: int) -> Layout:
    """Make the layout of one image or video, in which a frame is a tile. Sizes are in patches."""
    return video_layout([Layout.squares(height, width, merge)] * n_frames)


def layouts(modality: Modality, arguments: Mapping[str, Any], merge: int) -> list[Layout]:
    """Make the layout of every image or video in a call of an encoding function that is told their grids."""
    grids = arguments[f"{modality.name}_grid_thw"].tolist()
    return [layout(n_frames, height, width, merge) for n_frames, height, width in grids]


def frames(
    row: Shaped[Tensor, "patches ..."], grids: Int[Tensor, "images 3"], merges: int | Sequence[int]
) -> list[Shaped[Tensor, "frame_patches ..."]]:
    """Return the patches of every frame in raster order; a row with merge 1 has that order. `grids` are in patches."""
    each = [merges] * len(grids) if isinstance(merges, int) else merges
    images = zip(grids.tolist(), each, strict=True)
    shapes = [(height, width, merge) for (n_frames, height, width), merge in images for _ in range(n_frames)]
    pattern = "(row column y x) ... -> (row y column x) ..."
    return [
        rearrange(frame, pattern, row=height // merge, column=width // merge, y=merge, x=merge)
        for frame, (height, width, merge) in zip(row.split([h * w for h, w, _ in shapes]), shapes, strict=True)
    ]


def frame_pixels(
    arguments: Mapping[str, Any], config: Any, name: str = "hidden_states"
) -> list[Float[Tensor, "channels height width"]]:
    """Assemble every frame of a tower call from its patches, which are in the argument `name`.

    A patch covers a pair of frames (for an image, the same frame twice), whose mean is returned.
    """
    patches = reduce(
        arguments[name],
        "patch (channel time y x) -> patch channel y x",
        "mean",
        time=config.temporal_patch_size,
        y=config.patch_size,
        x=config.patch_size,
    )
    return assembled(patches, arguments["grid_thw"], config.spatial_merge_size)


def assembled(
    patches: Float[Tensor, "patches channels y x"], grids: Int[Tensor, "images 3"], merges: int | Sequence[int]
) -> list[Float[Tensor, "channels height width"]]:
    """Assemble every frame from its patches, which are in the order of the tower's row."""
    widths = [width for n_frames, _, width in grids.tolist() for _ in range(n_frames)]
    return [
        rearrange(frame, "(row column) channel y x -> channel (row y) (column x)", column=width)
        for frame, width in zip(frames(patches, grids, merges), widths, strict=True)
    ]


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Return the queries and keys of every frame, from the joint projection of queries, keys and values. Queries may
    share keys."""
    n_heads = config.num_heads
    n_keys = getattr(config, "num_key_value_heads", n_heads)
    width = call["attention"]["position_embeddings"][0].shape[-1]
    queries, keys, _ = call["qkv"].unflatten(-1, (-1, width)).split([n_heads, n_keys, n_keys], 1)
    keys = keys.repeat_interleave(n_heads // n_keys, 1)
    return rotated_frames(queries, keys, call, config.spatial_merge_size)


def separate_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Return `heads` for a tower that projects or norms queries and keys separately. Projections return the heads one
    after the other."""
    width = call["attention"]["position_embeddings"][0].shape[-1]
    queries, keys = (call[part].reshape(len(call[part]), -1, width) for part in ("queries", "keys"))
    return rotated_frames(queries, keys, call, config.spatial_merge_size)


def rotated_frames(
    queries: Float[Tensor, "patches heads width"],
    keys: Float[Tensor, "patches heads width"],
    call: Mapping[str, Any],
    merges: int | Sequence[int],
) -> QueryKey:
    """Rotate the queries and keys of all patches, and return those of every frame."""
    cos, sin = call["attention"]["position_embeddings"]
    grids = call["tower"]["grid_thw"]
    return tuple(by_frame(apply_rotary(states, cos, sin), grids, merges) for states in (queries, keys))


def by_frame(
    states: Float[Tensor, "patches heads width"], grids: Int[Tensor, "images 3"], merges: int | Sequence[int]
) -> list[Float[Tensor, "heads frame_patches width"]]:
    """Return the queries or keys of every frame."""
    return [rearrange(frame, "patch head width -> head patch width") for frame in frames(states, grids, merges)]


def windowed_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Return `heads` for a tower that groups the visual tokens by window before its first layer."""
    return heads(ungrouped(call, config), config)


def windowed_separate_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Return `separate_heads` for such a tower."""
    return separate_heads(ungrouped(call, config), config)


def ungrouped(call: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Return a call with the patches in their order without windows."""
    merge = config.spatial_merge_size
    back = order_by_window(call["tower"]["grid_thw"], config).argsort()

    def undo(row: Tensor) -> Tensor:
        return rearrange(row, "(token patch) width -> token patch width", patch=merge**2)[back].flatten(0, 1)

    cos, sin = map(undo, call["attention"]["position_embeddings"])
    parts = {name: undo(part) for name, part in call.items() if isinstance(part, Tensor)}
    return {**call, **parts, "attention": {"position_embeddings": (cos, sin)}}


def window_side(config: Any) -> int:
    """Return the side of a tower's windows, in visual tokens."""
    return config.window_size // config.spatial_merge_size // config.patch_size


def order_by_window(grids: Int[Tensor, "images 3"], config: Any) -> Int[Tensor, " visual"]:
    """Return the visual tokens in the order of a tower's windows."""
    return window_order(grids, config.spatial_merge_size, window_side(config))


def windowed(grids: Int[Tensor, "images 3"], config: Any) -> Row:
    """Return the row of a tower that groups the visual tokens by window before its first layer."""
    n_patches = config.spatial_merge_size**2
    first = n_patches * order_by_window(grids, config)
    order = first[:, None] + torch.arange(n_patches, device=first.device)
    return replace(adjacent(grids, config), order=order.flatten())


def _mergers(tower: Any) -> list[nn.Module]:
    """The mergers after the last layer, and after earlier ones whose features the decoder gets too (DeepStack)."""
    return [tower.merger, *getattr(tower, "deepstack_merger_list", ())]


def _blocks(tower: Any) -> Any:
    return tower.blocks


def _points(block: Any) -> CapturePoints:
    return CapturePoints(block.attn, {"qkv": block.attn.qkv})


def _normed_points(block: Any) -> CapturePoints:
    return norms(block.attn)


def _scale(tower: Any) -> float:
    return tower.blocks[0].attn.scaling


_ROW = PatchRow("hidden_states", adjacent, _mergers)

QWEN2_TOWER = Tower(
    _blocks,
    _points,
    n_prefix=0,
    heads=heads,
    scale=_scale,
    normalisation=CLIP_COLORS,
    row=_ROW,
    attention=JOINT,
)
QWEN2_5_TOWER = replace(QWEN2_TOWER, heads=windowed_heads, row=replace(_ROW, describe=windowed))
#: For images normalised as for SigLIP, as in Ovis.
HALVED_QWEN2_5_TOWER = replace(QWEN2_5_TOWER, normalisation=HALVES)
NORMED_TOWER = replace(QWEN2_TOWER, capture_points=_normed_points, heads=separate_heads)
QWEN3_TOWER = Tower(_blocks, _points, n_prefix=0, heads=heads, scale=_scale, row=_ROW, attention=JOINT)

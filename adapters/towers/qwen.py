"""The vision towers of Qwen-VL: the patches of all pictures in one row, attention within a frame or a window of it.

In the row, the merge x merge patches that become one visual token stand together. What comes out of here is frame after
frame, and in raster order within a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from tokenprune.adapters.towers.registry import CLIP_COLORS, QueryKey, Tower
from tokenprune.adapters.towers.rotary import rotated
from tokenprune.tokens.encoded import CapturePoints
from tokenprune.tokens.layout import Layout


def layout(n_frames: int, height: int, width: int, merge: int) -> Layout:
    """The visual tokens of one picture or video; the sizes count patches. A frame is a tile."""
    frame = Layout.squares(height, width, merge)
    if n_frames == 1:
        return frame
    _, rows, columns = frame.grid
    return replace(Layout.concat([frame] * n_frames), grids=((n_frames, rows, columns),))


def frames(
    row: Shaped[Tensor, "patches ..."], grids: Int[Tensor, "pictures 3"], merge: int
) -> list[Shaped[Tensor, "frame_patches ..."]]:
    """The patches of every frame in raster order. `grids` count patches."""
    sizes = [(height, width) for n_frames, height, width in grids.tolist() for _ in range(n_frames)]
    pattern = "(row column y x) ... -> (row y column x) ..."
    return [
        rearrange(frame, pattern, row=height // merge, column=width // merge, y=merge, x=merge)
        for frame, (height, width) in zip(row.split([h * w for h, w in sizes]), sizes, strict=True)
    ]


def pictures(arguments: Mapping[str, Any], config: Any) -> list[Float[Tensor, "channels height width"]]:
    """Every frame that a call of the tower sees, put together from its patches. A patch shows a pair of frames, of an
    image the same one twice; the picture is their mean."""
    grids = arguments["grid_thw"]
    patches = reduce(
        arguments["hidden_states"],
        "patch (channel time y x) -> patch channel y x",
        "mean",
        time=config.temporal_patch_size,
        y=config.patch_size,
        x=config.patch_size,
    )
    widths = [width for n_frames, _, width in grids.tolist() for _ in range(n_frames)]
    return [
        rearrange(frame, "(row column) channel y x -> channel (row y) (column x)", column=width)
        for frame, width in zip(frames(patches, grids, config.spatial_merge_size), widths, strict=True)
    ]


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Queries and keys of every frame, from the one projection that makes them and the values."""
    cos, sin = call["attention"]["position_embeddings"]
    pattern = "patch (part head width) -> part patch head width"
    queries, keys, _ = rearrange(call["qkv"], pattern, part=3, head=config.num_heads)

    def by_frame(states: Tensor) -> list[Tensor]:
        found = frames(rotated(states, cos, sin), call["tower"]["grid_thw"], config.spatial_merge_size)
        return [rearrange(frame, "patch head width -> head patch width") for frame in found]

    return by_frame(queries), by_frame(keys)


def windowed_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """`heads` of a tower that brings the visual tokens of a window together before its first layer."""
    merge = config.spatial_merge_size
    order = window_order(call["tower"]["grid_thw"], merge, config.window_size // merge // config.patch_size)
    back = order.argsort()

    def undone(row: Tensor) -> Tensor:
        return rearrange(row, "(token patch) width -> token patch width", patch=merge**2)[back].flatten(0, 1)

    cos, sin = map(undone, call["attention"]["position_embeddings"])
    return heads({**call, "qkv": undone(call["qkv"]), "attention": {"position_embeddings": (cos, sin)}}, config)


def window_order(grids: Int[Tensor, "pictures 3"], merge: int, side: int) -> Int[Tensor, " visual"]:
    """Which visual token stands where in the row, in windows of at most side x side of them."""
    orders, start = [], 0
    for n_frames, height, width in grids.tolist():
        places = torch.cartesian_prod(*map(torch.arange, (n_frames, height // merge, width // merge)))
        windows = (places // torch.tensor([1, side, side])).unique(dim=0, return_inverse=True)[1]
        orders.append(start + windows.argsort(stable=True))
        start += len(places)
    return torch.cat(orders).to(grids.device)


def _blocks(tower: Any) -> Any:
    return tower.blocks


def _taps(block: Any) -> CapturePoints:
    return CapturePoints(block.attn, {"qkv": block.attn.qkv})


QWEN2_TOWER = Tower(_blocks, _taps, n_prefix=0, heads=heads, normalisation=CLIP_COLORS)
QWEN2_5_TOWER = replace(QWEN2_TOWER, heads=windowed_heads)
QWEN3_TOWER = Tower(_blocks, _taps, n_prefix=0, heads=heads)

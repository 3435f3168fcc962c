"""Queries and keys of every tile, from what a tower's capture points returned.

`call` holds those outputs by name, the arguments of the attention under "attention" and the tower's under "tower".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from einops import rearrange
from torch import Tensor

from tokenprune.adapters.towers.rotary import apply_rotary

#: Queries and keys, (heads, tokens, width) per tile; a tower that pads its tiles adds a mask of the tokens that are not
#: padding, (tokens,) per tile.
QueryKey = tuple[Sequence[Tensor], ...]


def separate_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """From a query and a key projection, each (tiles, tokens, heads * width), without rotary embeddings."""
    queries, keys = (
        rearrange(call[part], "tile token (head width) -> tile head token width", head=config.num_attention_heads)
        for part in ("queries", "keys")
    )
    return list(queries), list(keys)


def padded_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """`separate_heads` and the mask of patches that are not padding."""
    return *separate_heads(call, config), list(call["tower"]["patch_attention_mask"].flatten(1))


def packed_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """From projections of the patches of all images in one row, (1, patches, heads * width), with rotary embeddings."""
    cos, sin = call["attention"]["position_embeddings"]
    sizes = [h // config.patch_size * (w // config.patch_size) for h, w in pixel_sizes(call["tower"])]
    queries, keys = (
        apply_rotary(rearrange(call[part][0], "patch (head width) -> patch head width", width=cos.shape[-1]), cos, sin)
        for part in ("queries", "keys")
    )
    return tuple(
        [rearrange(p, "patch head width -> head patch width") for p in x.split(sizes)] for x in (queries, keys)
    )


def pixel_sizes(arguments: Mapping[str, Any], name: str = "pixel_values") -> list[tuple[int, int]]:
    """(height, width) in pixels of each image of a call, without the padding that fills up the batch."""
    pixels, sizes = arguments[name], arguments.get("image_sizes")
    return [tuple(pixels.shape[-2:])] * len(pixels) if sizes is None else [(int(h), int(w)) for h, w in sizes]

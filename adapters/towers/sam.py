"""Towers built like Segment Anything's: most layers attend within windows, and all of them use relative positions.

The attention adds q . r_row[i, j] + q . r_column[i, j] to the scaled q . k. Both depend only on a key's row or column,
so they can be written as products, too: queries are extended by one number for each row and each column, and keys by a
one at their own row and column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import nn

from tokenprune.adapters.towers.tower import CLIP_COLORS, QueryKey, Tower
from tokenprune.encoded import CapturePoints

#: The mark at a key's row and column: too small to matter when keys are compared with each other, and a power of two,
#: by which every dtype divides exactly.
MARK = 2.0**-10


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Return the queries and keys of every tile, from the joint projection of queries, keys and values and the
    attention's relative positions."""
    attention, (_, height, width, _) = call["attention_module"], call["qkv"].shape
    pattern = "tile row column (part head width) -> part tile head row column width"
    queries, keys, _ = rearrange(call["qkv"], pattern, part=3, head=config.num_attention_heads)
    if attention.use_rel_pos:
        in_rows = attention.get_rel_pos(height, height, attention.rel_pos_h)
        in_columns = attention.get_rel_pos(width, width, attention.rel_pos_w)
        by_row = torch.einsum("t n h w c, h k c -> t n h w k", queries, in_rows)
        by_column = torch.einsum("t n h w c, w k c -> t n h w k", queries, in_columns)
        # In float32: divided by the mark, they exceed the largest number of float16.
        positions = (part.float() / (MARK * attention.scale) for part in (by_row, by_column))
        queries = torch.cat([queries.float(), *positions], -1)
        marks = (
            torch.eye(height).to(keys)[:, None].expand(-1, width, -1),
            torch.eye(width).to(keys).expand(height, -1, -1),
        )
        keys = torch.cat([keys, *(MARK * mark.expand(*keys.shape[:-1], -1) for mark in marks)], -1)
    flat = "tile head row column width -> tile head (row column) width"
    return list(rearrange(queries, flat)), list(rearrange(keys, flat))


def global_layers(tower: Any) -> list[int]:
    """The layers of such a tower that attend to the whole image."""
    return [number for number, layer in enumerate(tower.layers) if layer.window_size == 0]


def _layers(tower: Any) -> nn.ModuleList:
    return tower.layers


def _points(layer: Any) -> CapturePoints:
    return CapturePoints(layer.attn, {"qkv": layer.attn.qkv})


SAM_TOWER = Tower(_layers, _points, n_prefix=0, heads=heads, normalisation=CLIP_COLORS)

"""Reads the attention of a decoder layer from what was captured of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tokenprune.adapters.decoder.attention import text_attention_scale, text_heads, text_rotation, text_values
from tokenprune.tokens.text_attention import TextAttention

#: Reads a row's attention, given the places of its visual tokens and its text.
RowReader: TypeAlias = Callable[[int, Int[Tensor, " visual"], Int[Tensor, " text"]], TextAttention]


def attention_reader(
    layer: Any,
    call: Mapping[str, Any],
    n_past: int,
    valid: Bool[Tensor, "batch tokens"],
    device: torch.device | None = None,
) -> RowReader:
    """Return a function that reads a row's attention in a decoder layer, given the places of its visual tokens and its
    text there.

    call: what was captured of the layer; without its values if it has not been entered.
    n_past: how many slots the layer's cache held before.
    valid: which of the tokens that the layer saw are neither holes nor padding.
    device: where the attention is read; None means the layer's own.
    """
    ahead = "values" not in call
    parts = (*text_heads(layer, call), text_rotation(layer, call), *([] if ahead else [text_values(layer, call)]))
    queries, keys, rotation, *values = (part if device is None else part.to(device) for part in parts)
    scale, mask, n_new = text_attention_scale(layer), call["attention"].get("attention_mask"), queries.shape[2]

    def read(row: int, visual: Tensor, text: Tensor) -> TextAttention:
        seen = added = None
        if isinstance(mask, Tensor) and mask.ndim == 4:  # over the cache's slots, and a static one's free room
            begin = min(n_past, mask.shape[3] - n_new)  # a layer with a window holds fewer slots
            own = mask[min(row, len(mask) - 1), 0, :, begin : begin + n_new].to(queries.device)
            seen, added = (own, None) if own.dtype == torch.bool else (own > torch.finfo(own.dtype).min / 2, own)
        angles = rotation[:, min(row, rotation.shape[1] - 1)]
        own_heads = queries[row], keys[row]
        real, visual, text = (part.to(queries.device) for part in (valid[row], visual, text))
        own_values = None if ahead else values[0][row]
        return TextAttention(*own_heads, scale, real, visual, text, seen, added, own_values, angles, ahead)

    return read

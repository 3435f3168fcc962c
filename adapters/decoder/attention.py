"""How the attention of a language model's decoder layers is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tokenprune.adapters.towers.rotary import rotated
from tokenprune.errors import UnsupportedError
from tokenprune.tokens.encoded import CapturePoints


def text_capture_points(layer: Any) -> CapturePoints:
    """The modules that show one decoder layer's attention."""
    attention = layer.self_attn
    queries, keys = (getattr(attention, f"{part}_norm", getattr(attention, f"{part}_proj", None)) for part in "qk")
    if queries is None or keys is None:
        raise UnsupportedError(
            f"the attention of {type(attention).__name__} has no query and key projections of its own, which a "
            f"strategy that is guided by the text needs. Use one that prunes before the language model."
        )
    return CapturePoints(attention, {"queries": queries, "keys": keys})


def text_heads(call: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Queries and keys, (batch, heads, tokens, width), with rotary embeddings, of a captured call.

    Norms give heads apart, in either order; projections give them together.
    """
    cos, sin = call["attention"]["position_embeddings"]
    n_tokens, width = cos.shape[-2:]
    turned = []
    for part in (call["queries"], call["keys"]):
        if part.ndim == 4 and part.shape[2] == n_tokens != part.shape[1]:
            part = part.transpose(1, 2)
        part = part.reshape(len(part), n_tokens, -1, width)
        at = zip(part, cos.expand(len(part), -1, -1), sin.expand(len(part), -1, -1), strict=True)
        turned.append(torch.stack([rotated(*row) for row in at]).transpose(1, 2))
    return turned[0], turned[1]

"""How the attention of a language model's decoder layers is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.towers.rotary import apply_rotary
from tokenprune.errors import UnsupportedError
from tokenprune.tokens.encoded import CapturePoints


def text_capture_points(layer: Any) -> CapturePoints:
    """Return the modules that expose one decoder layer's attention. Raises UnsupportedError for an attention without
    separate queries and keys."""
    attention = layer.self_attn
    queries, keys = (getattr(attention, f"{part}_norm", getattr(attention, f"{part}_proj", None)) for part in "qk")
    if queries is None or keys is None:
        raise UnsupportedError(
            f"the attention of {type(attention).__name__} has no separate query and key projections, which a "
            f"text-guided strategy needs. Use one that prunes before the language model."
        )
    return CapturePoints(attention, {"queries": queries, "keys": keys})


def text_heads(
    layer: Any, call: Mapping[str, Any]
) -> tuple[Float[Tensor, "batch heads tokens width"], Float[Tensor, "batch key_heads tokens width"]]:
    """Return a decoder layer's queries and keys with rotary embeddings, from what its capture points returned and the
    attention's arguments under "attention".

    Norms return separate heads, in either order; projections return them concatenated.
    """
    cos, sin = (_one_angle(layer.self_attn, part) for part in call["attention"]["position_embeddings"])
    n_tokens, width = cos.shape[-2:]
    rotated = []
    for part in (call["queries"], call["keys"]):
        if part.ndim == 4 and part.shape[2] == n_tokens != part.shape[1]:
            part = part.transpose(1, 2)
        part = part.reshape(len(part), n_tokens, -1, width)
        rows = zip(part, cos.expand(len(part), -1, -1), sin.expand(len(part), -1, -1), strict=True)
        rotated.append(torch.stack([apply_rotary(*row) for row in rows]).transpose(1, 2))
    return rotated[0], rotated[1]


def text_attention_scale(layer: Any) -> float:
    """Return the factor of q . k in a decoder layer's attention."""
    return layer.self_attn.scaling


def _one_angle(
    attention: Any, embedding: Float[Tensor, "components rows tokens width"] | Float[Tensor, "rows tokens width"]
) -> Float[Tensor, "rows tokens width"]:
    """The position embedding that the attention rotates by. In older transformers, the attention of Qwen2-VL and
    Qwen2.5-VL gets one for each component of the position IDs, and takes a section of the angles from each in turn."""
    if embedding.ndim == 3:
        return embedding
    sections = embedding.split(attention.config.rope_parameters["mrope_section"] * 2, -1)
    return torch.cat([section[i % len(section)] for i, section in enumerate(sections)], -1)

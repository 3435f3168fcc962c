"""The vision towers of the LLaVA, InternVL, Idefics, DeepSeek-VL and Ovis families, registered by `config.model_type`.

DINOv2 with registers is missing on purpose: LLaVA mistakes its register tokens for patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import torch
from einops import rearrange
from torch import nn

from tokenprune.adapters.towers.attention import RowAttention, apply_rotary, project_separate, separate_points
from tokenprune.adapters.towers.row import pixel_sizes
from tokenprune.adapters.towers.tower import (
    CLIP_COLORS,
    IMAGENET,
    QueryKey,
    Tower,
    encoder_layers,
    norms,
    projected_points,
    projections,
    register_tower,
)
from tokenprune.encoded import CapturePoints
from tokenprune.tokens.attention import split_heads


def _clip_values(layer: Any) -> nn.Module:
    return layer.self_attn.v_proj


_dino_layers = attrgetter("encoder.layer")


def _dino_points(layer: Any) -> CapturePoints:
    attention = layer.attention
    if hasattr(attention, "attention"):  # up to 5.1x
        return CapturePoints(attention, {"queries": attention.attention.query, "keys": attention.attention.key})
    return projections(attention)


def _dino_values(layer: Any) -> nn.Module:
    attention = layer.attention
    return attention.attention.value if hasattr(attention, "attention") else attention.v_proj  # up to 5.1x


def _internvl_points(layer: Any) -> CapturePoints:
    return norms(layer.attention)


def _internvl_values(layer: Any) -> nn.Module:
    return layer.attention.v_proj


def _pixtral_points(layer: Any) -> CapturePoints:
    return projections(layer.attention)


def _pixtral_projections(layer: Any) -> CapturePoints:
    return separate_points(layer.attention)


def padded_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """`heads` from projections without rotary embeddings, and the mask of patches that are not padding."""
    queries, keys = (list(split_heads(call[part], config.num_attention_heads)) for part in ("queries", "keys"))
    real = call["tower"].get("patch_attention_mask")
    real = torch.ones_like(call["keys"][..., 0], dtype=torch.bool) if real is None else real.flatten(1)
    return queries, keys, list(real)


def packed_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """`heads` from projections of the patches of all images in one row, (1, patches, heads * width), with rotary
    embeddings."""
    cos, sin = call["attention"]["position_embeddings"]
    sizes = [h // config.patch_size * (w // config.patch_size) for h, w in pixel_sizes(call["tower"])]
    queries, keys = (
        apply_rotary(rearrange(call[part][0], "patch (head width) -> patch head width", width=cos.shape[-1]), cos, sin)
        for part in ("queries", "keys")
    )
    return tuple(
        [rearrange(p, "patch head width -> head patch width") for p in x.split(sizes)] for x in (queries, keys)
    )


_IDEFICS = Tower(encoder_layers, projected_points, n_prefix=0, heads=padded_heads)

register_tower(
    "clip_vision_model",
    Tower(encoder_layers, projected_points, n_prefix=1, normalisation=CLIP_COLORS, values=_clip_values),
)
register_tower("siglip_vision_model", Tower(encoder_layers, projected_points, n_prefix=0, values=_clip_values))
register_tower("dinov2", Tower(_dino_layers, _dino_points, n_prefix=1, normalisation=IMAGENET, values=_dino_values))
register_tower(
    "internvl_vision",
    Tower(_dino_layers, _internvl_points, n_prefix=1, normalisation=IMAGENET, values=_internvl_values),
)
register_tower("idefics2_vision", _IDEFICS)
register_tower("idefics3_vision", _IDEFICS)
register_tower("smolvlm_vision", _IDEFICS)
register_tower(
    "pixtral",
    Tower(
        attrgetter("transformer.layers"),
        _pixtral_points,
        n_prefix=0,
        heads=packed_heads,
        normalisation=CLIP_COLORS,
        attention=RowAttention(_pixtral_projections, project_separate),
    ),
)
register_tower(
    "qianfan_ocr_vision",
    Tower(attrgetter("layers"), _internvl_points, n_prefix=1, normalisation=IMAGENET, values=_internvl_values),
)
register_tower("janus_vision_model", Tower(encoder_layers, projected_points, n_prefix=0, normalisation=CLIP_COLORS))
register_tower("granite_docling_vision", Tower(encoder_layers, projected_points, n_prefix=0, normalisation=CLIP_COLORS))
register_tower(
    "ovis2_vision",
    Tower(attrgetter("transformer.encoder.layers"), _pixtral_points, n_prefix=0, normalisation=CLIP_COLORS),
)

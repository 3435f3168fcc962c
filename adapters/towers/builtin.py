"""The vision towers of the LLaVA, InternVL, Idefics, DeepSeek-VL and Ovis families, registered by `config.model_type`.

DINOv2 with registers is missing on purpose: LLaVA mistakes its register tokens for patches.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tokenprune.adapters.towers.registry import register_tower
from tokenprune.adapters.towers.tower import CLIP_COLORS, IMAGENET, Tower, packed_heads, padded_heads, projections
from tokenprune.tokens.encoded import CapturePoints


def _clip_layers(tower: Any) -> nn.ModuleList:
    return getattr(tower, "vision_model", tower).encoder.layers  # up to 5.1x the tower is one module deeper


def _clip_points(layer: Any) -> CapturePoints:
    return projections(layer.self_attn)


def _clip_values(layer: Any) -> nn.Module:
    return layer.self_attn.v_proj


def _dino_layers(tower: Any) -> nn.ModuleList:
    return tower.encoder.layer


def _dino_points(layer: Any) -> CapturePoints:
    attention = layer.attention
    if hasattr(attention, "attention"):  # up to 5.1x
        return CapturePoints(attention, {"queries": attention.attention.query, "keys": attention.attention.key})
    return projections(attention)


def _dino_values(layer: Any) -> nn.Module:
    attention = layer.attention
    return attention.attention.value if hasattr(attention, "attention") else attention.v_proj  # up to 5.1x


def _internvl_points(layer: Any) -> CapturePoints:
    attention = layer.attention
    return CapturePoints(attention, {"queries": attention.q_norm, "keys": attention.k_norm})


def _pixtral_layers(tower: Any) -> nn.ModuleList:
    return tower.transformer.layers


def _pixtral_points(layer: Any) -> CapturePoints:
    return projections(layer.attention)


def _listed_layers(tower: Any) -> nn.ModuleList:
    return tower.layers


def _ovis_layers(tower: Any) -> nn.ModuleList:
    return tower.transformer.encoder.layers


_IDEFICS = Tower(_clip_layers, _clip_points, n_prefix=0, heads=padded_heads)

register_tower(
    "clip_vision_model",
    Tower(_clip_layers, _clip_points, n_prefix=1, normalisation=CLIP_COLORS, values=_clip_values),
)
register_tower("siglip_vision_model", Tower(_clip_layers, _clip_points, n_prefix=0, values=_clip_values))
register_tower("dinov2", Tower(_dino_layers, _dino_points, n_prefix=1, normalisation=IMAGENET, values=_dino_values))
register_tower("internvl_vision", Tower(_dino_layers, _internvl_points, n_prefix=1, normalisation=IMAGENET))
register_tower("idefics2_vision", _IDEFICS)
register_tower("idefics3_vision", _IDEFICS)
register_tower("smolvlm_vision", _IDEFICS)
register_tower(
    "pixtral", Tower(_pixtral_layers, _pixtral_points, n_prefix=0, heads=packed_heads, normalisation=CLIP_COLORS)
)
register_tower("qianfan_ocr_vision", Tower(_listed_layers, _internvl_points, n_prefix=1, normalisation=IMAGENET))
register_tower("janus_vision_model", Tower(_clip_layers, _clip_points, n_prefix=0, normalisation=CLIP_COLORS))
register_tower("granite_docling_vision", Tower(_clip_layers, _clip_points, n_prefix=0, normalisation=CLIP_COLORS))
register_tower("ovis2_vision", Tower(_ovis_layers, _pixtral_points, n_prefix=0, normalisation=CLIP_COLORS))

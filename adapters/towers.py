"""The vision towers that LLaVA models come with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from tokenprune.errors import UnsupportedError


@dataclass(frozen=True)
class Tower:
    """layers and projections find the encoder layers and a layer's (q, k); n_prefix tokens come before the patches."""

    layers: Callable[[Any], nn.ModuleList]
    projections: Callable[[Any], tuple[nn.Module, nn.Module]]
    n_prefix: int


def _clip_layers(tower: Any) -> nn.ModuleList:
    return getattr(tower, "vision_model", tower).encoder.layers  # up to 5.1x the tower is one module deeper


def _clip_projections(layer: Any) -> tuple[nn.Module, nn.Module]:
    return layer.self_attn.q_proj, layer.self_attn.k_proj


def _dino_layers(tower: Any) -> nn.ModuleList:
    return tower.encoder.layer


def _dino_projections(layer: Any) -> tuple[nn.Module, nn.Module]:
    if hasattr(layer.attention, "attention"):  # up to 5.1x
        return layer.attention.attention.query, layer.attention.attention.key
    return layer.attention.q_proj, layer.attention.k_proj


#: By config.model_type. DINOv2 with registers is not here on purpose: LLaVA takes its register tokens for patches.
TOWERS = {
    "clip_vision_model": Tower(_clip_layers, _clip_projections, n_prefix=1),
    "siglip_vision_model": Tower(_clip_layers, _clip_projections, n_prefix=0),
    "dinov2": Tower(_dino_layers, _dino_projections, n_prefix=1),
}


def tower_of(model_type: str, owner: str) -> Tower:
    """The Tower of a vision config's model_type. Raises UnsupportedError for one that is not listed."""
    if model_type not in TOWERS:
        raise UnsupportedError(
            f"{owner} has a {model_type!r} vision tower, whose visual tokens tokenprune cannot place on a grid. "
            f"Supported: {', '.join(TOWERS)}. To add one: adapters/README.md."
        )
    return TOWERS[model_type]

"""The vision towers that models come with, and how their attention is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.errors import UnsupportedError
from tokenprune.vision import AttentionTaps

#: Queries and keys, one of each per tile.
Heads = tuple[Sequence[Float[Tensor, "heads tokens width"]], Sequence[Float[Tensor, "heads tokens width"]]]


def separate_heads(call: Mapping[str, Any], config: Any) -> Heads:
    """From a query and a key projection, each (tiles, tokens, heads * width), without rotary embeddings."""
    queries, keys = (
        rearrange(call[part], "tile token (head width) -> tile head token width", head=config.num_attention_heads)
        for part in ("queries", "keys")
    )
    return list(queries), list(keys)


@dataclass(frozen=True)
class Tower:
    """How one kind of vision encoder is read.

    layers: its encoder layers.
    taps: the modules of a layer that show its attention.
    heads: queries and keys of every tile, from what the taps showed and the encoder's config.
    n_prefix: how many tokens come before the patches.
    """

    layers: Callable[[Any], nn.ModuleList]
    taps: Callable[[Any], AttentionTaps]
    n_prefix: int
    heads: Callable[[Mapping[str, Any], Any], Heads] = separate_heads

    def head_width(self, config: Any) -> int:
        return config.hidden_size // config.num_attention_heads


def _clip_layers(tower: Any) -> nn.ModuleList:
    return getattr(tower, "vision_model", tower).encoder.layers  # up to 5.1x the tower is one module deeper


def _clip_taps(layer: Any) -> AttentionTaps:
    attention = layer.self_attn
    return AttentionTaps(attention, {"queries": attention.q_proj, "keys": attention.k_proj})


def _dino_layers(tower: Any) -> nn.ModuleList:
    return tower.encoder.layer


def _dino_taps(layer: Any) -> AttentionTaps:
    attention = layer.attention
    if hasattr(attention, "attention"):  # up to 5.1x
        return AttentionTaps(attention, {"queries": attention.attention.query, "keys": attention.attention.key})
    return AttentionTaps(attention, {"queries": attention.q_proj, "keys": attention.k_proj})


#: By config.model_type. DINOv2 with registers is not here on purpose: LLaVA takes its register tokens for patches.
TOWERS = {
    "clip_vision_model": Tower(_clip_layers, _clip_taps, n_prefix=1),
    "siglip_vision_model": Tower(_clip_layers, _clip_taps, n_prefix=0),
    "dinov2": Tower(_dino_layers, _dino_taps, n_prefix=1),
}


def tower_of(model_type: str, owner: str) -> Tower:
    """The Tower of a vision config's model_type. Raises UnsupportedError for one that is not listed."""
    if model_type not in TOWERS:
        raise UnsupportedError(
            f"{owner} has a {model_type!r} vision tower, whose visual tokens tokenprune cannot place on a grid. "
            f"Supported: {', '.join(TOWERS)}. To add one: adapters/README.md."
        )
    return TOWERS[model_type]

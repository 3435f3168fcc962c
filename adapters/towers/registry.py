"""The vision towers that models come with, and how their attention is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from tokenprune.adapters.towers.rotary import rotated
from tokenprune.errors import UnsupportedError
from tokenprune.tokens.encoded import CapturePoints

HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP_COLORS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

#: Queries and keys, (heads, tokens, width) of each per tile; a tower that is given padding adds which tokens are none.
QueryKey = tuple[Sequence[Tensor], ...]


def separate_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """From a query and a key projection, each (tiles, tokens, heads * width), without rotary embeddings."""
    queries, keys = (
        rearrange(call[part], "tile token (head width) -> tile head token width", head=config.num_attention_heads)
        for part in ("queries", "keys")
    )
    return list(queries), list(keys)


def padded_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """`separate_heads`, and which patches are no padding."""
    return *separate_heads(call, config), list(call["tower"]["patch_attention_mask"].flatten(1))


def packed_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """From projections of the patches of all pictures in one row, (1, patches, heads * width), with rotary
    embeddings."""
    cos, sin = call["attention"]["position_embeddings"]
    sizes = [h // config.patch_size * (w // config.patch_size) for h, w in pixel_sizes(call["tower"])]
    queries, keys = (
        rotated(rearrange(call[part][0], "patch (head width) -> patch head width", width=cos.shape[-1]), cos, sin)
        for part in ("queries", "keys")
    )
    return tuple(
        [rearrange(p, "patch head width -> head patch width") for p in x.split(sizes)] for x in (queries, keys)
    )


def pixel_sizes(arguments: Mapping[str, Any], name: str = "pixel_values") -> list[tuple[int, int]]:
    """(height, width) in pixels of the pictures in a call; what is beyond it only fills up the batch."""
    pixels, sizes = arguments[name], arguments.get("image_sizes")
    return [tuple(pixels.shape[-2:])] * len(pixels) if sizes is None else [(int(h), int(w)) for h, w in sizes]


@dataclass(frozen=True)
class Tower:
    """How one kind of vision encoder is read.

    layers: its encoder layers.
    taps: the modules of a layer that show its attention.
    heads: queries and keys of every tile, from what the taps showed and the encoder's config.
    n_prefix: how many tokens come before the patches.
    normalisation: mean and deviation per channel that its pictures are normalised with.
    values: the module that shows the values of a layer, for towers whose layers may be given fewer patches: no windows,
        no rotary embeddings, no padding. None for any other.
    """

    layers: Callable[[Any], nn.ModuleList]
    taps: Callable[[Any], CapturePoints]
    n_prefix: int
    heads: Callable[[Mapping[str, Any], Any], QueryKey] = separate_heads
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]] = HALVES
    values: Callable[[Any], nn.Module] | None = None

    def head_width(self, config: Any) -> int:
        return config.hidden_size // config.num_attention_heads


def _clip_layers(tower: Any) -> nn.ModuleList:
    return getattr(tower, "vision_model", tower).encoder.layers  # up to 5.1x the tower is one module deeper


def _projections(attention: Any) -> CapturePoints:
    return CapturePoints(attention, {"queries": attention.q_proj, "keys": attention.k_proj})


def _clip_taps(layer: Any) -> CapturePoints:
    return _projections(layer.self_attn)


def _clip_values(layer: Any) -> nn.Module:
    return layer.self_attn.v_proj


def _dino_layers(tower: Any) -> nn.ModuleList:
    return tower.encoder.layer


def _dino_taps(layer: Any) -> CapturePoints:
    attention = layer.attention
    if hasattr(attention, "attention"):  # up to 5.1x
        return CapturePoints(attention, {"queries": attention.attention.query, "keys": attention.attention.key})
    return _projections(attention)


def _dino_values(layer: Any) -> nn.Module:
    attention = layer.attention
    return attention.attention.value if hasattr(attention, "attention") else attention.v_proj  # up to 5.1x


def _internvl_taps(layer: Any) -> CapturePoints:
    attention = layer.attention
    return CapturePoints(attention, {"queries": attention.q_norm, "keys": attention.k_norm})


def _pixtral_layers(tower: Any) -> nn.ModuleList:
    return tower.transformer.layers


def _pixtral_taps(layer: Any) -> CapturePoints:
    return _projections(layer.attention)


_IDEFICS = Tower(_clip_layers, _clip_taps, n_prefix=0, heads=padded_heads)

#: By config.model_type. DINOv2 with registers is not here on purpose: LLaVA takes its register tokens for patches.
TOWERS = {
    "clip_vision_model": Tower(_clip_layers, _clip_taps, n_prefix=1, normalisation=CLIP_COLORS, values=_clip_values),
    "siglip_vision_model": Tower(_clip_layers, _clip_taps, n_prefix=0, values=_clip_values),
    "dinov2": Tower(_dino_layers, _dino_taps, n_prefix=1, normalisation=IMAGENET, values=_dino_values),
    "internvl_vision": Tower(_dino_layers, _internvl_taps, n_prefix=1, normalisation=IMAGENET),
    "idefics3_vision": _IDEFICS,
    "smolvlm_vision": _IDEFICS,
    "pixtral": Tower(_pixtral_layers, _pixtral_taps, n_prefix=0, heads=packed_heads, normalisation=CLIP_COLORS),
}


def tower_of(model_type: str, owner: str) -> Tower:
    """The Tower of a vision config's model_type. Raises UnsupportedError for one that is not listed."""
    if model_type not in TOWERS:
        raise UnsupportedError(
            f"{owner} has a {model_type!r} vision tower, whose visual tokens tokenprune cannot place on a grid. "
            f"Supported: {', '.join(TOWERS)}. To add one: adapters/README.md."
        )
    return TOWERS[model_type]

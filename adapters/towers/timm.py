"""timm's vision towers in transformers' wrapper: vision transformers, such as the Perception Encoder, and convolutional
towers whose last stages have attention (FastViT, MobileNet V5)."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tokenprune.adapters.towers.tower import UNNORMALISED, QueryKey, Tower, norms
from tokenprune.encoded import CapturePoints
from tokenprune.errors import UnsupportedError

#: The `config.model_type` of all timm towers.
WRAPPER = "timm_wrapper"


def timm_tower(vision: Any) -> Tower:
    """Return how a vision transformer is read, whose CLS and register tokens come first. Raises UnsupportedError for
    any other design."""
    model = vision.timm_model
    blocks = getattr(model, "blocks", None)
    if not blocks or not all(hasattr(getattr(block, "attn", None), "q_norm") for block in blocks):
        raise UnsupportedError(
            f"how timm's {type(model).__name__} attends is not known. Use a strategy that reads no vision attention, "
            f"with adapter=tokenprune.GenericAdapter."
        )
    return Tower(
        attrgetter("timm_model.blocks"),
        _points,
        n_prefix=model.num_prefix_tokens,
        heads=_heads,
        scale=_scale,
    )


def _points(block: Any) -> CapturePoints:
    return norms(block.attn)  # identities if it has none


def _scale(tower: Any) -> float:
    return tower.timm_model.blocks[0].attn.scale


def _heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Queries and keys; those of patches are rotated if the attention gets angles."""
    attention, angles = call["attention_module"], call["attention"].get("rope")
    queries, keys = (_rotated(call[part], angles, attention) for part in ("queries", "keys"))
    return list(queries), list(keys.repeat_interleave(queries.shape[1] // keys.shape[1], 1))


def _rotated(
    states: Float[Tensor, "tiles heads tokens width"], angles: Tensor | None, attention: Any
) -> Float[Tensor, "tiles heads tokens width"]:
    if angles is None:
        return states
    from timm.layers import apply_rot_embed_cat  # pyright: ignore[reportMissingImports]

    first = attention.num_prefix_tokens
    patches = apply_rot_embed_cat(states[:, :, first:], angles, half=getattr(attention, "rotate_half", False))
    return torch.cat([states[:, :, :first], patches], 2).to(states.dtype)


def fastvit_tower(vision: Any) -> Tower | None:
    """Return how the last stage of a FastViT is read, which has a token for each place of its output; None for any
    other tower, or if that stage is convolutional."""
    stages = getattr(getattr(vision, "timm_model", None), "stages", None)
    blocks = None if stages is None else getattr(stages[-1], "blocks", None)
    if not blocks or not all(hasattr(getattr(block, "token_mixer", None), "qkv") for block in blocks):
        return None
    return Tower(
        _mixing_blocks,
        _mixed_points,
        n_prefix=0,
        heads=_mixed_heads,
        scale=_mixed_scale,
        normalisation=UNNORMALISED,
    )


def _mixing_blocks(tower: Any) -> Any:
    return tower.timm_model.stages[-1].blocks


def _mixed_points(block: Any) -> CapturePoints:
    return CapturePoints(block.token_mixer, {"qkv": block.token_mixer.qkv})


def _mixed_scale(tower: Any) -> float:
    return tower.timm_model.stages[-1].blocks[0].token_mixer.scale


def _mixed_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    pattern = "tile patch (part head width) -> part tile head patch width"
    queries, keys, _ = rearrange(call["qkv"], pattern, part=3, head=call["attention_module"].num_heads)
    return list(queries), list(keys)


def mobilenet_tower(vision: Any) -> Tower | None:
    """Return how the attention in the last stage of a MobileNet is read, whose heads share keys; None for any other
    tower, or if that stage has none."""
    stages = getattr(getattr(vision, "timm_model", None), "blocks", None)
    attending = _attending(stages[-1]) if stages else []
    if not attending or any(block.attn.kv_stride > 1 or block.attn.has_query_strides for block in attending):
        return None
    return Tower(
        _last_attending,
        _shared_points,
        n_prefix=0,
        heads=_shared_heads,
        scale=_shared_scale,
        normalisation=UNNORMALISED,
    )


def _attending(stage: Any) -> list[Any]:
    if not isinstance(stage, nn.Sequential):
        return []
    return [block for block in stage if hasattr(getattr(block, "attn", None), "kv_stride")]


def _last_attending(tower: Any) -> nn.ModuleList:
    return nn.ModuleList(_attending(tower.timm_model.blocks[-1]))


def _shared_points(block: Any) -> CapturePoints:
    return CapturePoints(block.attn, {"queries": block.attn.query, "keys": block.attn.key})


def _shared_scale(tower: Any) -> float:
    return _attending(tower.timm_model.blocks[-1])[0].attn.scale


def _shared_heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    n_heads = call["attention_module"].num_heads
    queries = rearrange(call["queries"], "tile (head width) row column -> tile head (row column) width", head=n_heads)
    keys = rearrange(call["keys"], "tile width row column -> tile 1 (row column) width")
    return list(queries), list(keys.expand(-1, n_heads, -1, -1))

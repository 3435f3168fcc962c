"""DeepSeek-OCR 2: queries that have read the crops of an image and the whole image, and a separator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tokenprune.adapters.layouts.crops import image_by_image
from tokenprune.adapters.layouts.newlines import append_maximum
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.attention import apply_rotary
from tokenprune.adapters.towers.resampler import reading_shares, with_reads
from tokenprune.adapters.towers.tower import QueryKey, projected_points, scale_of_width
from tokenprune.encoded import CapturePoints, Modality
from tokenprune.tokens.layout import Layout


@register_adapter("DeepseekOcr2ForConditionalGeneration", names={r"deepseek-community/DeepSeek-OCR-2": None})
class DeepseekOcr2Adapter(KnownTowerAdapter):
    """For DeepseekOcr2ForConditionalGeneration.

    In the second of the tower's encoders, all patches attend to each other; the queries after them attend to all
    patches and to earlier queries, and become the visual tokens, which have no place on a grid. Maps over patches
    become maps over visual tokens by what the last layer attends to. Tiles are the crops, and then the image with the
    separator.
    """

    def describe_tower(self) -> Tower:
        return TOWER

    @property
    def offers(self) -> Set[str]:
        return super().offers - {"grid"}

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_global = output.last_hidden_state.shape[1]
        local = output.get("local_last_hidden_state")
        n_local = 0 if local is None else local.shape[1]
        counts = [(len(image) - n_global - 1) // n_local if n_local else 0 for image in self.features(output)]
        return [tiles_and_separator(n_crops, n_local, n_global) for n_crops in counts]

    def by_image(self, statistic: str, tiles: list[Any], layouts: Sequence[Layout]) -> list[Any]:
        return image_by_image(statistic, tiles, layouts)

    def capture_points(self, layer: int | None) -> list[CapturePoints]:
        (point,) = super().capture_points(layer)
        last = self.vision_tower.vision_encoder.layers[-1].self_attn
        return [with_reads(point, last, convolved=self.vision_tower.sam_encoder.proj)]


def tiles_and_separator(n_crops: int, n_local: int, n_global: int) -> Layout:
    """The layout of an image: `n_crops` crops of `n_local` visual tokens each, then the whole image in `n_global`,
    neither on a grid, then the separator."""
    sizes = torch.tensor([n_local] * n_crops + [n_global + 1])
    return Layout(
        (*[(1, 1, n_local)] * n_crops, (1, 1, n_global), (1, 1, 1)),
        n_crops + 1,
        partial(to_tokens, n_local=n_local, n_global=n_global),
        torch.arange(n_crops + 1).repeat_interleave(sizes),
        torch.arange(int(sizes.sum())) == int(sizes.sum()) - 1,
    )


def to_tokens(values: Float[Tensor, "tiles queries"], n_local: int, n_global: int) -> Float[Tensor, " visual"]:
    """Join the maps over the queries of all tiles. The separator gets the highest value."""
    joined = torch.cat([values[:-1, :n_local].flatten(), values[-1, :n_global]])
    return append_maximum(joined)


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Rotated queries and keys of every tile's patches, and what the queries after them read."""
    n_groups = config.encoder_config.num_attention_heads // config.encoder_config.num_key_value_heads
    return heads_of(call, call["convolved"][0, 0].numel(), n_groups)


def heads_of(call: Mapping[str, Any], n_patches: int, n_groups: int) -> QueryKey:
    """The same for tiles of `n_patches` patches each. n_groups: how many queries share a key."""
    cos, sin = (part[0] for part in call["attention"]["position_embeddings"])

    def rotated(states: Float[Tensor, "tiles tokens heads_width"]) -> list[Tensor]:
        split = rearrange(states, "tile token (head width) -> tile token head width", width=cos.shape[-1])
        return [rearrange(apply_rotary(tile, cos, sin), "token head width -> head token width") for tile in split]

    queries, keys, reading, read = (rotated(call[part]) for part in ("queries", "keys", "reading", "read"))
    tiles = zip(reading, read, strict=True)
    return (
        [part[:, :n_patches] for part in queries],
        [part[:, :n_patches].repeat_interleave(n_groups, 0) for part in keys],
        [torch.ones(n_patches, dtype=torch.bool, device=cos.device)] * len(queries),
        [reading_shares(reading[:, n_patches:], all_[:, :n_patches], cos.shape[-1] ** -0.5) for reading, all_ in tiles],
    )


def _scale(tower: Any) -> float:
    return scale_of_width(tower.vision_encoder)


TOWER = Tower(
    attrgetter("vision_encoder.layers"),
    projected_points,
    n_prefix=0,
    heads=heads,
    scale=_scale,
)

"""Llama 4: square tiles with separators between them, then an overview; most layers attend within chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.adapters.layouts.tiles import starts_after_final_marker, token_ids
from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import KnownTowerAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.tower import QueryKey, projected_points
from tokenprune.encoded import Modality
from tokenprune.errors import PruningError
from tokenprune.tokens.attention import split_heads
from tokenprune.tokens.layout import Layout


@register_adapter("Llama4ForConditionalGeneration", has_ideal=False)  # it processes features further
class Llama4Adapter(KnownTowerAdapter):
    """For Llama4ForConditionalGeneration, which is its own base model.

    It does not know which tiles belong to one image; the processor's marker before an image's overview, its last or
    only tile, shows it.
    """

    @property
    def vision_tower(self) -> Any:
        return getattr(self.model, "vision_model", None)

    def describe_tower(self) -> Tower:
        return TOWER

    def features(self, output: Any) -> Sequence[Float[Tensor, "*tokens width"]]:
        return list(output.last_hidden_state)

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        return starts_after_final_marker(token_ids(kwargs), visual)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        config = self.vision_tower.config
        side = config.image_size // config.patch_size
        return [Layout.squares(side, side, round(1 / config.pixel_shuffle_ratio))] * len(self.features(output))

    def check_length(self, n_columns: int) -> None:
        """Raise PruningError for a sequence so long that attention is scaled by places in the cache."""
        text = self.config.get_text_config()
        if text.attn_temperature_tuning and n_columns >= text.floor_scale:
            raise PruningError(
                f"this sequence has {n_columns} tokens, and from {text.floor_scale} on Llama 4 scales attention by "
                f"places in the cache, which pruning changes. Shorten it, or load the model with "
                f"attn_temperature_tuning=False in its text config."
            )


def heads(call: Mapping[str, Any], config: Any) -> QueryKey:
    """Rotated queries and keys, of the CLS token first, which is last in the tower."""
    angles = call["attention"]["freqs_ci"][:, 0]

    def rotated(states: Float[Tensor, "tiles tokens heads_width"]) -> list[Tensor]:
        pairs = split_heads(states, config.num_attention_heads).float().unflatten(-1, (-1, 2))
        turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * angles).flatten(-2)
        return list(turned.roll(1, -2).to(states.dtype))

    return rotated(call["queries"]), rotated(call["keys"])


TOWER = Tower(attrgetter("model.layers"), projected_points, n_prefix=1, heads=heads)

"""Granite 4 Vision: tiles as in LLaVA-NeXT, whose features enter between decoder layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from tokenprune.adapters.decoder.deepstack import prune_deepstack
from tokenprune.adapters.families.llava_next import LlavaNextAdapter, layout_of_size
from tokenprune.adapters.registry import register_adapter
from tokenprune.sequence.packing import Packing
from tokenprune.tokens.layout import Layout

MASK, FEATURES = "vision_mask", "deepstack_features"


@register_adapter("Granite4VisionForConditionalGeneration", first_stage=21, makes_cache=False, has_ideal=False)
class Granite4VisionAdapter(LlavaNextAdapter):
    """For Granite4VisionForConditionalGeneration.

    A visual token enters the language model as zeros, and before some of its layers features are added. Strategies read
    their sum. Inside the language model, tokens can be dropped from the last of these layers on.
    """

    late_features = True

    @property
    def first_stage(self) -> int:
        return max(1, *(layer for _, layer in self.config.deepstack_layer_map), *self.config.spatial_target_layers)

    @property
    def feature_layers(self) -> int | list[int]:
        return [*(state for state, _ in self.config.deepstack_layer_map), self.config.spatial_vision_layer]

    @property
    def side(self) -> int:
        """The side of a tile in visual tokens."""
        return int(super().side * Fraction(self.config.downsample_rate))

    def anyres(self, size: Any, **packing: Any) -> Layout:
        layout = layout_of_size(size, type(self.core), self.config, self.side, **packing)
        return replace(layout, to_tokens=partial(to_tokens_pooled, to_tokens=layout.to_tokens, side=self.side))

    def visual_features(self, kwargs: Mapping[str, Any]) -> Float[Tensor, "batch length width"]:
        embeds, mask = kwargs["inputs_embeds"], kwargs[MASK]
        return embeds + spread(torch.stack(list(kwargs[FEATURES].values())).sum(0), mask[..., 0])

    def merge_late(self, kwargs: dict[str, Any], merge: Callable[[Tensor], Tensor]) -> None:
        mask = kwargs[MASK][..., 0]
        kwargs[FEATURES] = {layer: merge(spread(part, mask))[mask] for layer, part in kwargs[FEATURES].items()}

    def prune_arguments(self, kwargs: dict[str, Any], packing: Packing, n_slots: int) -> None:
        super().prune_arguments(kwargs, packing, n_slots)
        prune_deepstack(kwargs, packing, MASK, FEATURES)


def spread(
    features: Float[Tensor, "visual width"], mask: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch length width"]:
    """Put the features of all visual tokens in their columns, with zeros elsewhere."""
    return features.new_zeros(*mask.shape, features.shape[-1]).masked_scatter(mask[..., None], features)


def to_tokens_pooled(
    values: Float[Tensor, "tiles patches"], to_tokens: Callable[[Tensor], Tensor], side: int
) -> Float[Tensor, " visual"]:
    """Average the patches that each of side x side visual tokens of a tile is made from."""
    patches = values.unflatten(1, (round(values.shape[1] ** 0.5), -1))
    return to_tokens(adaptive_avg_pool2d(patches, side).flatten(1))

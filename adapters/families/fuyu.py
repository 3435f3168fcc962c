"""Fuyu: a visual token is a patch that no tower has encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from tokenprune.adapters.generic import GenericAdapter
from tokenprune.adapters.layouts.tiles import starts_after_gaps
from tokenprune.adapters.registry import register_adapter


@register_adapter("FuyuForCausalLM", has_ideal=False)  # it processes features further
class FuyuAdapter(GenericAdapter):
    """For FuyuForCausalLM. The processor writes a marker after every row; markers are text and stay.

    The model knows neither which patches belong to one image nor where they are in it: the processor joins those of all
    images. The prompt shows where an image begins: more than a marker separates it from the one before.
    """

    since = (5, 24)

    def features(self, output: Any) -> Sequence[Float[Tensor, "*tokens width"]]:
        return list(output.last_hidden_state)

    def image_starts(
        self, kwargs: Mapping[str, Any], visual: Bool[Tensor, "batch length"]
    ) -> Bool[Tensor, "batch length"]:
        return starts_after_gaps(visual, more_than=1)

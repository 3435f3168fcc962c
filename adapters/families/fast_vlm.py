"""FastVLM: one square of visual tokens, from a convolutional tower whose last stages attend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenprune.adapters.registry import register_adapter
from tokenprune.adapters.towered import ConvolutionalAdapter
from tokenprune.adapters.towers import Tower
from tokenprune.adapters.towers.timm import fastvit_tower
from tokenprune.encoded import Modality
from tokenprune.tokens.layout import Layout


@register_adapter("FastVlmForConditionalGeneration")
class FastVlmAdapter(ConvolutionalAdapter):
    """For FastVlmForConditionalGeneration. The published tower (FastViT) attends in its last two stages; the last one,
    which is read, has one token for each visual token."""

    def find_attention(self, vision: Any) -> Tower | None:
        return fastvit_tower(vision)

    def layouts(self, modality: Modality, arguments: Mapping[str, Any], output: Any) -> list[Layout]:
        n_images, _, rows, columns = output.last_hidden_state.shape
        return [Layout.raster((1, rows, columns))] * n_images

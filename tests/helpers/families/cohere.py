"""Cohere 2 Vision and Aya Vision: square tiles with tokens between them."""

from typing import Any

import torch
from transformers import AyaVisionConfig, Cohere2VisionConfig

from .base import BREAK, END, IMAGE, START, ImageInputs, Size, decoder, tower
from .common import CommonFamily

TILE = 24  # pixels
PER_TILE = 9


class Cohere2Vision(CommonFamily):
    """One layer with a sliding window, and one without, which does not rotate queries and keys. A line break follows
    each tile."""

    class_name = "Cohere2VisionForConditionalGeneration"
    sizes = ((1, 1), (1, 2))  # in tiles; an overview follows several tiles

    def text(self) -> dict[str, Any]:
        return decoder(
            model_type="cohere2",
            layer_types=["sliding_attention", "full_attention"],
            sliding_window=12,
            logit_scale=1.0,
        )

    def vision(self) -> dict[str, Any]:
        return {**tower(TILE), "model_type": "siglip_vision_model", "vision_use_head": False}

    def config(self) -> Any:
        return Cohere2VisionConfig(
            vision_config=self.vision(),
            text_config=self.text(),
            image_token_id=IMAGE,
            alignment_intermediate_size=48,
            tie_word_embeddings=False,
        )

    def n_tiles(self, size: Size) -> int:
        return 1 if size == (1, 1) else size[0] * size[1] + 1

    def block(self, size: Size) -> list[int]:
        line_break = BREAK
        return [START, *[*[IMAGE] * PER_TILE, line_break] * self.n_tiles(size), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(self.n_tiles(size), 3, TILE, TILE, generator=generator)}


class AyaVision(Cohere2Vision):
    """A marker precedes each tile."""

    class_name = "AyaVisionForConditionalGeneration"

    def config(self) -> Any:
        return AyaVisionConfig(
            vision_config=self.vision(), text_config=self.text(), image_token_index=IMAGE, tie_word_embeddings=False
        )

    def block(self, size: Size) -> list[int]:
        markers = [*range(2, self.n_tiles(size) + 1), BREAK]
        return [START, *(token for marker in markers for token in (marker, *[IMAGE] * PER_TILE)), END]

"""InternVL: an image is a number of square tiles, each shuffled to a quarter of its tokens."""

from __future__ import annotations

from typing import Any

import torch
from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

from .base import ENCODES_FIRST, END, IMAGE, PATCH, START, Family, ImageInputs, Size, decoder, tiles_of_images, tower

TILE = 24  # pixels; 3 x 3 visual tokens a tile


class InternVL(Family):
    class_name = "InternVLForConditionalGeneration"
    # Two tiles and the overview; an image that is one tile.
    sizes = ((TILE, 2 * TILE), (TILE, TILE))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if not ENCODES_FIRST:  # transformers repeats every tile by itself, and the beams' images get mixed up
            self.cannot["beams"] = (AssertionError, "logits differ")

    def config(self) -> Any:
        return InternVLConfig(
            vision_config=InternVLVisionConfig(**tower(TILE)),
            text_config=Qwen2Config(**decoder()),
            image_token_id=IMAGE,
            image_seq_length=9,
            tie_word_embeddings=False,
        )

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * (n_tiles(size) * (TILE // PATCH // 2) ** 2), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        return {"pixel_values": torch.randn(n_tiles(size), 3, TILE, TILE, generator=generator)}

    def split(self, inputs: dict[str, Any]) -> list[ImageInputs]:
        counts = tiles_of_images(inputs["input_ids"], (TILE // PATCH // 2) ** 2)
        return [{"pixel_values": pixels} for pixels in inputs["pixel_values"].split(counts)]

    def repeated(self, inputs: dict[str, Any], n: int, per_row: list[int]) -> dict[str, Any]:
        out = super().repeated(inputs, n, per_row)
        if not self.repeats_rows():  # each tile by itself, so that images get each other's
            out["pixel_values"] = inputs["pixel_values"].repeat_interleave(n, 0)
        return out


def n_tiles(size: Size) -> int:
    """The tiles of an image, the overview among them if there are several."""
    tiles = size[0] // TILE * (size[1] // TILE)
    return tiles if tiles == 1 else tiles + 1

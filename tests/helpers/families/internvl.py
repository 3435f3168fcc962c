"""InternVL: an image consists of square tiles, whose tokens are reduced to a quarter by pixel shuffling."""

from typing import Any

import torch
from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

from .base import ENCODES_FIRST, END, IMAGE, PATCH, START, Family, ImageInputs, Inputs, Size, decoder, tower

TILE = 24  # pixels; 3 x 3 visual tokens per tile


class InternVL(Family):
    class_name = "InternVLForConditionalGeneration"
    # Two tiles and the overview; then an image of one tile.
    sizes = ((TILE, 2 * TILE), (TILE, TILE))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        if not ENCODES_FIRST:  # transformers repeats every tile separately, which mixes up the beams' images
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

    def repeated(self, inputs: Inputs, n: int, per_row: list[int]) -> Inputs:
        out = super().repeated(inputs, n, per_row)
        if not self.repeats_rows():  # each tile separately, so that images get other images' tiles
            out["pixel_values"] = inputs["pixel_values"].repeat_interleave(n, 0)
        return out


def n_tiles(size: Size) -> int:
    """Return the number of tiles of an image, including the overview if there are several."""
    tiles = size[0] // TILE * (size[1] // TILE)
    return tiles if tiles == 1 else tiles + 1

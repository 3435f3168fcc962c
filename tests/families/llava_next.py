"""LLaVA-NeXT: a picture is an overview and tiles, whose padding is cut off, with a newline token behind each row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

from .base import IMAGE, PATCH, Family, Picture, Size, decoder, tower

TILE = 12  # pixels; 3 x 3 visual tokens a tile
PINPOINTS = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]
MOST_TILES = 5


class LlavaNext(Family):
    class_name = "LlavaNextForConditionalGeneration"
    # Four tiles of which 4 x 6 tokens are left; two tiles; four of which 6 x 4 are left; two tiles.
    sizes = ((16, 24), (12, 30), (30, 16), (26, 12))

    def config(self) -> Any:
        return LlavaNextConfig(
            vision_config=CLIPVisionConfig(**tower(TILE)),
            text_config=LlamaConfig(**decoder()),
            image_token_index=IMAGE,
            image_grid_pinpoints=PINPOINTS,
        )

    def block(self, size: Size) -> list[int]:
        rows, columns = get_anyres_image_grid_shape(size, PINPOINTS, TILE)
        side = TILE // PATCH
        _, height, width = unpad_image(torch.zeros(1, rows * side, columns * side), size).shape
        return [IMAGE] * (side * side + height * (width + 1))

    def picture(self, size: Size, generator: torch.Generator) -> Picture:
        pixels = torch.zeros(1, MOST_TILES, 3, TILE, TILE)
        n_tiles = image_size_to_num_patches(size, PINPOINTS, TILE)
        pixels[0, :n_tiles] = torch.randn(n_tiles, 3, TILE, TILE, generator=generator)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([size])}

    def split(self, inputs: dict[str, Any]) -> list[Picture]:
        pixels: Tensor | None = inputs.get("pixel_values")
        if pixels is None:
            return []
        return [
            {"pixel_values": one, "image_sizes": size}
            for one, size in zip(pixels.split(1), inputs["image_sizes"].split(1), strict=True)
        ]

"""Idefics3 and SmolVLM: the tiles of a row in one tensor, and markers around each tile in the prompt."""

from typing import Any

import torch
from transformers import Idefics3Config, Idefics3VisionConfig, LlamaConfig, SmolVLMConfig, SmolVLMVisionConfig

from .base import BREAK, IMAGE, PATCH, START, Family, ImageInputs, Size, decoder, tower

TILE = 32  # pixels; SmolVLM of transformers 5.20 needs a multiple of PATCH visual tokens per tile
MARKER, OVERVIEW = START, BREAK
PER_TILE = (TILE // PATCH // 2) ** 2


class Idefics3(Family):
    class_name = "Idefics3ForConditionalGeneration"
    # Two tiles and the overview; then a small image, whose only tile is padded.
    sizes = ((TILE, 2 * TILE), (TILE, 24))

    def config(self) -> Any:
        return Idefics3Config(
            vision_config=Idefics3VisionConfig(**tower(TILE)),
            text_config=LlamaConfig(**decoder()),
            image_token_id=IMAGE,
            scale_factor=2,
        )

    def block(self, size: Size) -> list[int]:
        """Return the IDs: a marker and a header before each tile, the overview last, and a marker at the end."""
        headers = [*range(2, n_tiles(size) + 1), OVERVIEW]
        return [token for header in headers for token in (MARKER, header, *[IMAGE] * PER_TILE)] + [MARKER]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        pixels = torch.randn(n_tiles(size), 3, TILE, TILE, generator=generator)
        real = torch.ones(n_tiles(size), TILE, TILE).long()
        if size[1] < TILE:
            real[:, :, size[1] :] = 0
        return {"pixel_values": pixels * real[:, None], "pixel_attention_mask": real}

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        rows = []
        for row in range(len(per_row)):
            start = sum(per_row[:row])
            rows.append(super().join(images[start : start + per_row[row]], per_row))
        most = max(len(row["pixel_values"]) for row in rows if row)
        out = {}
        for key in ("pixel_values", "pixel_attention_mask"):
            shape = images[0][key].shape[1:]
            dtype = images[0][key].dtype
            out[key] = torch.zeros(len(rows), most, *shape, dtype=dtype)
            for row, tensors in enumerate(rows):
                if tensors:
                    out[key][row, : len(tensors[key])] = tensors[key]
        return out

    def repeats_rows(self) -> bool:
        return True


class SmolVLM(Idefics3):
    class_name = "SmolVLMForConditionalGeneration"

    def config(self) -> Any:
        return SmolVLMConfig(
            vision_config=SmolVLMVisionConfig(**tower(TILE)),
            text_config=LlamaConfig(**decoder()),
            image_token_id=IMAGE,
            scale_factor=2,
        )


def n_tiles(size: Size) -> int:
    """Return the number of tiles of an image, including the overview if there are several."""
    return 1 if size[1] <= TILE else size[1] // TILE + 1

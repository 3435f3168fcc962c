"""Idefics3 and SmolVLM: the tiles of a row in one tensor, and markers around each tile in the prompt. Granite Docling
with other markers, and Idefics2, whose images are resampled to a fixed number of tokens."""

from typing import Any

import torch

from .base import BREAK, IMAGE, PATCH, START, Family, ImageInputs, Size
from .common import CommonFamily

TILE = 32  # pixels; SmolVLM of transformers 5.20 needs a multiple of PATCH visual tokens per tile
MARKER, OVERVIEW = START, BREAK
PER_TILE = (TILE // PATCH // 2) ** 2
FIRST_TILE, ROW_END = 80, BREAK
LATENTS, LARGEST = 8, 24


class Idefics3(Family):
    # Two tiles and the overview; then a small image, whose only tile is padded.
    sizes = ((TILE, 2 * TILE), (TILE, 24))

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


class GraniteDocling(CommonFamily, Idefics3):
    """Tiles have headers, and a line break ends each row of tiles. An image of one tile has no overview, and only the
    line break follows it. Further features are added between decoder layers."""

    sizes = ((TILE, 2 * TILE), (TILE, TILE))

    def block(self, size: Size) -> list[int]:
        one = [IMAGE] * PER_TILE
        n_crops = 1 if n_tiles(size) == 1 else n_tiles(size) - 1
        ids = [token for crop in range(n_crops) for token in (START, FIRST_TILE + crop, *one)] + [ROW_END]
        return ids if n_crops == 1 else [*ids, ROW_END, START, OVERVIEW - 8, *one, START]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        pixels = torch.randn(n_tiles(size), 3, TILE, TILE, generator=generator)
        return {"pixel_values": pixels, "pixel_attention_mask": torch.ones(n_tiles(size)).bool()}


class Idefics2(CommonFamily, Idefics3):
    sizes = ((24, 24), (16, 24))

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * LATENTS, START]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        real = torch.zeros(1, LARGEST, LARGEST).long()
        real[:, : size[0], : size[1]] = 1
        pixels = torch.randn(1, 3, LARGEST, LARGEST, generator=generator)
        return {"pixel_values": pixels * real[:, None], "pixel_attention_mask": real}


def n_tiles(size: Size) -> int:
    """Return the number of tiles of an image, including the overview if there are several."""
    return 1 if size[1] <= TILE else size[1] // TILE + 1

"""Families that share little with others: LFM2-VL, Nemotron-H Omni and Inkling."""

from typing import Any

import torch

from .base import BREAK, END, IMAGE, PATCH, START, ImageInputs, Size
from .common import CommonFamily
from .qwen_vl import MERGE

TILE = 24  # pixels of a tile's side
MOST = 64  # patches of a tile, to which all are padded
STEP = 2  # frames
PIXELS = 8  # per side of a visual token


class Lfm2VL(CommonFamily):
    """Larger images become tiles and an overview, and every tile has its own marker before it. Short convolutions are
    between the layers with attention."""

    contract = "never seen"
    sizes = ((32, 24), (24, 48), (24, 32))  # one tile, 1 x 2 tiles and an overview, one tile

    def tiles(self, size: Size) -> list[Size]:
        height, width = size
        n_tiles = (height // TILE) * (width // TILE)
        square = PATCH * MERGE
        overview = (-(-height // 2 // square) * square, -(-width // 2 // square) * square)
        return [size] if n_tiles == 1 else [*[(TILE, TILE)] * n_tiles, overview]

    def block(self, size: Size) -> list[int]:
        """Return the IDs. If an image has several tiles, a marker before each gives its place, or marks the
        overview."""
        runs = [[IMAGE] * ((h // PATCH // MERGE) * (w // PATCH // MERGE)) for h, w in self.tiles(size)]
        if len(runs) == 1:
            return [START, *runs[0], END]
        markers = [*range(2, len(runs) + 1), BREAK]
        return [START, *(token for marker, run in zip(markers, runs, strict=True) for token in (marker, *run)), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        shapes = torch.tensor([[h // PATCH, w // PATCH] for h, w in self.tiles(size)])
        real = (torch.arange(MOST) < shapes.prod(-1, keepdim=True)).long()
        pixels = torch.randn(len(shapes), MOST, 3 * PATCH**2, generator=generator)
        return {"pixel_values": pixels, "spatial_shapes": shapes, "pixel_attention_mask": real}


class NemotronOmni(CommonFamily):
    """One layer each of state space, experts, attention and a plain MLP."""

    contract = "never seen"
    sizes = ((32, 24), (24, 40), (32, 32))
    video_sizes = ((4, 24, 16),)  # all videos of a call have the same size
    mixes = False
    numbered = False

    def repeats_rows(self) -> bool:
        return False

    def block(self, size: Size) -> list[int]:
        *frames, height, width = size
        step = [START, *[IMAGE] * (height // PATCH // MERGE * (width // PATCH // MERGE)), END]
        timestamp = 2
        return [timestamp, *step] * (frames[0] // STEP) if frames else step

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        *frames, height, width = size
        if frames:
            shape = (1, frames[0] // STEP, STEP * 3, height, width)
            return {"pixel_values_videos": torch.randn(shape, generator=generator)}
        grid = torch.tensor([[height // PATCH, width // PATCH]])
        pixels = torch.randn(int(grid.prod()), 3 * PATCH**2, generator=generator)
        return {"pixel_values": pixels, "image_grid_hw": grid}


class Inkling2(CommonFamily):
    """Relative positions in attention, short convolutions, and residual connections that span blocks; with loops, the
    last two of the decoder's four layers run twice. Grids count visual tokens, and pixels are one square per token. No
    images of several frames."""

    contract = "never seen"
    numbered = False
    sizes = ((32, 32), (48, 32), (24, 40))  # 4 x 4, 6 x 4 and 3 x 5 visual tokens

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # Distances count the filled slots, but a static cache returns all of its keys.
        self.cannot["static"] = ((RuntimeError, KeyError), "must match the size|(sliding|full)_attention")

    def build(self, attention: Any = "eager", seed: int = 0, n_layers: int | None = None) -> Any:
        return super().build("eager", seed, n_layers)

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * (size[0] // PIXELS * (size[1] // PIXELS)), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        grid = [1, size[0] // PIXELS, size[1] // PIXELS]
        pixels = torch.randn(grid[1] * grid[2], PIXELS, PIXELS, 3, generator=generator)
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([grid])}


class Inkling(Inkling2):
    """Without grids, and with an audio tower that tests do not use. Squares are given in two frames."""

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        n_squares = size[0] // PIXELS * (size[1] // PIXELS)
        return {"pixel_values": torch.randn(n_squares, 2, PIXELS, PIXELS, 3, generator=generator)}

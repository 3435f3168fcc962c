"""MiniCPM-V and MiniCPM-OCR: an overview of every image, followed by slices of larger ones."""

from typing import Any

import torch

from .base import BREAK, END, IMAGE, PATCH, START, VIDEO, ImageInputs, Size
from .common import CommonFamily

#: Markers around slices. They must differ from ordinary text tokens.
SLICE_START, SLICE_END, NEWLINE = 87, 88, BREAK


class MiniCPMV46(CommonFamily):
    """The first layer has a state, the second does not. The tower merges 2 x 2 patches inside, and again at its end."""

    contract = "never seen"
    sizes = ((48, 48), (32, 64), (64, 64))  # one overview; 1 x 2 slices; 2 x 2 slices
    video_sizes = ((2, 32, 48), (3, 48, 32))
    merge = 4  # patches side by side that make one visual token
    slice = 32  # pixels of a slice's side

    def tiles(self, size: Size) -> list[Size]:
        """Return the sizes of the overview and of the slices."""
        height, width = size
        rows, columns = height // self.slice, width // self.slice
        if rows * columns < 2:
            return [size]
        overview = (self.slice, self.slice) if rows == columns else (self.slice // 2 * rows, self.slice // 2 * columns)
        return [overview, *[(self.slice, self.slice)] * (rows * columns)]

    def n_visual(self, size: Size) -> int:
        return (size[0] // PATCH // self.merge) * (size[1] // PATCH // self.merge)

    def block(self, size: Size) -> list[int]:
        if len(size) == 3:
            frames, *frame = size
            return [START, *[VIDEO] * self.n_visual(tuple(frame)), END] * frames
        overview, *slices = self.tiles(size)
        block, columns = [START, *[IMAGE] * self.n_visual(overview), END], size[1] // self.slice
        for i, one in enumerate(slices):
            newline = [NEWLINE] if i and i % columns == 0 else []
            block += [*newline, SLICE_START, *[IMAGE] * self.n_visual(one), SLICE_END]
        return block

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        tiles = [size[1:]] * size[0] if len(size) == 3 else self.tiles(size)
        grids = torch.tensor([[height // PATCH, width // PATCH] for height, width in tiles])
        pixels = torch.randn(1, 3, PATCH, PATCH * int(grids.prod(-1).sum()), generator=generator)
        if len(size) == 3:
            return {"pixel_values_videos": pixels, "target_sizes_videos": grids}
        return {"pixel_values": pixels, "target_sizes": grids}

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        joined = {key: [image[key] for image in images if key in image] for key in {key for i in images for key in i}}
        return {key: torch.cat(parts, -1 if key.startswith("pixel") else 0) for key, parts in sorted(joined.items())}


class MiniCPMV47(MiniCPMV46):
    """Position IDs have three components, with slices placed on a canvas."""

    volatile = ("rope_deltas",)
    typed = True


class MiniCPMOcr(MiniCPMV46):
    """Merges only once."""

    sizes = ((16, 24), (16, 32), (32, 32))
    video_sizes = ((2, 16, 24),)
    merge = 2
    slice = 16

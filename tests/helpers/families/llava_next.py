"""LLaVA-NeXT and its relatives, Granite 4 Vision among them: an image is an overview and tiles, whose padding is cut
off, with a newline token after each of their rows."""

from typing import Any

import torch
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

from tokenprune import PruningError

from .base import IMAGE, PATCH, VIDEO, Family, ImageInputs, Size
from .common import CommonFamily
from .llava import frames_of

MOST_TILES = 5


class LlavaNext(Family):
    """tile: the side of a tile in pixels. token: that of a visual token."""

    tile = 12  # 3 x 3 visual tokens
    token = PATCH
    # Four tiles of which 4 x 6 tokens are left; two tiles; four tiles of which 6 x 4 are left; two tiles.
    sizes = ((16, 24), (12, 30), (30, 16), (26, 12))

    def resolutions(self) -> list[list[int]]:
        return self.stored["image_grid_pinpoints"]

    def unpadded(self, size: Size) -> tuple[int, int]:
        """Return (height, width) of what is left of the tiles, in visual tokens."""
        side = self.tile // self.token
        rows, columns = get_anyres_image_grid_shape(size, self.resolutions(), self.tile)
        _, height, width = unpad_image(torch.zeros(1, rows * side, columns * side), size).shape
        return height, width

    def block(self, size: Size) -> list[int]:
        height, width = self.unpadded(size)
        return [IMAGE] * ((self.tile // self.token) ** 2 + height * (width + 1))

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        if len(size) == 3:
            return frames_of(size, generator)
        pixels = torch.zeros(1, MOST_TILES, 3, self.tile, self.tile)
        n_tiles = image_size_to_num_patches(size, self.resolutions(), self.tile)
        pixels[0, :n_tiles] = torch.randn(n_tiles, 3, self.tile, self.tile, generator=generator)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([size])}


class LlavaNextVideo(LlavaNext):
    """A frame of a video is pooled to 2 x 2 visual tokens."""

    tile = 16  # 4 x 4 visual tokens
    sizes = ((16, 48), (48, 14))  # 2 x 8 and 8 x 2 tokens are left
    video_sizes = ((4, 16, 16),)

    def block(self, size: Size) -> list[int]:
        return [VIDEO] * (size[0] * 4) if len(size) == 3 else super().block(size)


class LlavaOnevision(LlavaNext):
    """An image that is alone in its row has tiles, which are resized if there are many; several images are one tile
    each. Frames of a video are pooled to 2 x 2 visual tokens, with one newline token after the video."""

    most_tiles = 2
    sizes = ((24, 24), (12, 30), (30, 16))  # 6 x 6 tokens resized to 4 x 4; 3 x 6; 6 x 4 resized
    video_sizes = ((4, 12, 12),)

    def unpadded(self, size: Size) -> tuple[int, int]:
        height, width = super().unpadded(size)
        ratio = (height * width / (self.most_tiles * (self.tile // PATCH) ** 2)) ** 0.5
        return (int(height // ratio), int(width // ratio)) if ratio > 1.1 else (height, width)

    def block(self, size: Size) -> list[int]:
        return [VIDEO] * (size[0] * 4 + 1) if len(size) == 3 else super().block(size)

    def blocks(self, sizes: list[Size]) -> list[list[int]]:
        if sum(len(size) == 2 for size in sizes) < 2:
            return super().blocks(sizes)
        one_tile = [IMAGE] * ((self.tile // PATCH) ** 2 + 1)
        return [one_tile if len(size) == 2 else self.block(size) for size in sizes]

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        out = super().join(images, per_row)
        if "pixel_values" in out:
            starts = [sum(per_row[:row]) for row in range(len(per_row))]
            rows = [images[start : start + n] for start, n in zip(starts, per_row, strict=True)]
            out["batch_num_images"] = torch.tensor([sum("pixel_values" in one for one in row) for row in rows])
        return out


class Granite4Vision(CommonFamily, LlavaNext):
    """Half as many visual tokens as patches in each direction. Features enter before decoder layers 0 and 1, in six
    parts."""

    tile, token = 16, 2 * PATCH  # 2 x 2 visual tokens
    sizes = ((16, 24), (12, 30), (30, 16))

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # transformers repeats every image separately, which mixes up the images of a row.
        self.cannot["sampled"] = self.cannot["beams"] = (AssertionError, "differ")
        self.cannot["loop"] = ((KeyError, PruningError), "cache")  # the model itself makes no cache

    def config(self) -> Any:
        config = super().config()
        config.qformer_config.intermediate_size = 48
        return config

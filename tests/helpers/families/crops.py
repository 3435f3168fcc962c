"""Families that give the model crops of an image and the whole image: Step 3.7, Unlimited-OCR and DeepSeek-OCR 2."""

from typing import Any

import torch

from .base import BREAK, END, IMAGE, START, ImageInputs, Size
from .common import CommonFamily
from .llava import Llava

CROP_START, CROP_END = 88, 89
WHOLE, CROP = 64, 32  # the sides of the image and of a crop in pixels
SIDE, PART = WHOLE // 16, CROP // 16  # the same in visual tokens


class Crops(CommonFamily, Llava):
    # Two crops, none, two. Sizes are in pixels of the crops.
    sizes = ((32, 64), (32, 32), (64, 32))

    def grid(self, size: Size) -> tuple[int, int]:
        """Return rows and columns of crops; none if there would be only one."""
        rows, columns = size[0] // CROP, size[1] // CROP
        return (0, 0) if rows * columns == 1 else (rows, columns)

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        rows, columns = self.grid(size)
        return {
            "pixel_values": torch.randn(1, 3, WHOLE, WHOLE, generator=generator),
            "pixel_values_local": torch.randn(rows * columns, 3, CROP, CROP, generator=generator),
            "num_local_patches": torch.tensor([rows * columns]),
        }

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        out = super().join(images, per_row)
        out["num_local_patches"] = out["num_local_patches"].tolist()
        if not len(out["pixel_values_local"]):
            del out["pixel_values_local"]
        return out


class Step3p7(Crops):
    """Crops are between their own markers, before the image; two convolutions merge 4 x 4 patches into a token. One
    decoder layer has a window and more heads."""

    def block(self, size: Size) -> list[int]:
        rows, columns = self.grid(size)
        ids = ([CROP_START, *[IMAGE] * PART**2, CROP_END] * columns + [BREAK]) * rows
        return [*ids, START, *[IMAGE] * SIDE**2, END]


class UnlimitedOcr(Crops):
    """The crops as one canvas, the image, and a separator, with newline tokens. Answers have a window, which is longer
    than any answer in the tests that all families share."""

    def block(self, size: Size) -> list[int]:
        rows, columns = self.grid(size)
        return [IMAGE] * (rows * PART * (columns * PART + 1) + SIDE * (SIDE + 1) + 1)

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        rows, columns = self.grid(size)
        return {**super().image_inputs(size, generator), "patches_grid": torch.tensor([[columns, rows]])}

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        out = super().join(images, per_row)
        out["patches_grid"] = out["patches_grid"].tolist()
        return out


class DeepseekOcr2(Crops):
    """Crops, the whole image and a separator. Each is read by as many queries as there are patches after the
    convolutions of the tower."""

    sizes = ((32, 64), (32, 32))

    def build(self, attention: Any = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        model = super().build(attention, seed, n_layers)
        if model.config.vision_config.sam_config.image_size == WHOLE:  # the code would use more queries
            generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
            queries = torch.nn.Embedding.from_pretrained(torch.randn(16, 32, generator=generator))
            model.model.vision_tower.query_768_resolution = queries
        return model

    def block(self, size: Size) -> list[int]:
        rows, columns = self.grid(size)
        return [IMAGE] * (16 * rows * columns + 16 + 1)

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        out = super().join(images, per_row)
        out["num_local_patches"] = torch.tensor(out["num_local_patches"])
        return out

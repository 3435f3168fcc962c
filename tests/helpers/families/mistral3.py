"""Mistral 3: images of any size, 2 x 2 patches per visual token, and a marker after each row. LLaVA with the same
tower: one patch per visual token. Emu3 and Apertus 1.5, whose visual tokens are codes that the language model itself
embeds."""

from typing import Any

import torch

from .base import BREAK, END, IMAGE, PATCH, START, Family, ImageInputs, Size
from .common import CommonFamily


class Mistral3(Family):
    """token: the side of a visual token in pixels."""

    token = 2 * PATCH
    sizes = ((24, 32), (40, 16), (32, 32))  # 3 x 4, 5 x 2 and 4 x 4 visual tokens

    def block(self, size: Size) -> list[int]:
        row = [*[IMAGE] * (size[1] // self.token), BREAK]
        return [*(row * (size[0] // self.token))[:-1], END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        pixels = torch.randn(1, 3, *size, generator=generator)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([size])}

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        height, width = (max(image["pixel_values"].shape[axis] for image in images) for axis in (2, 3))
        return super().join([padded(image, height, width) for image in images], per_row)


class LlavaPixtral(Mistral3):
    token = PATCH
    sizes = ((16, 20), (24, 12), (20, 20))  # 4 x 5, 6 x 3 and 5 x 5 visual tokens


class LightOnOcr(CommonFamily, Mistral3):
    """Mistral 3 with a different language model."""


class Apertus1p5(CommonFamily, Mistral3):
    """One code per 4 x 4 pixels; row markers are text."""

    eager_tower = True
    token = 4
    sizes = ((12, 16), (20, 8), (16, 16))


class Emu3(CommonFamily, Mistral3):
    """One code per 4 x 4 pixels, and one after each row."""

    token = 4
    sizes = ((12, 16), (20, 8), (16, 16))

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * (size[0] // self.token * (size[1] // self.token + 1)), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        """Return an image that is padded, which its codes depend on, like all others."""
        return padded(super().image_inputs(size, generator), 20, 16)

    def build(self, attention: Any = "sdpa", seed: int = 0, n_layers: int | None = None) -> Any:
        model = super().build(attention, seed, n_layers)
        names = self.stored["vocabulary_map"]
        model.generation_config.suppress_tokens += [names[name] for name in names if "visual token" in name]
        return model


def padded(image: ImageInputs, height: int, width: int) -> ImageInputs:
    """Return the image with its pixels padded with zeros, which the model cuts off again."""
    pixels = image["pixel_values"]
    fill = (0, width - pixels.shape[3], 0, height - pixels.shape[2])
    return {**image, "pixel_values": torch.nn.functional.pad(pixels, fill)}

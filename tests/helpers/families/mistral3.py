"""Mistral 3: images of any size, 2 x 2 patches per visual token, and a marker after each row. LLaVA with the same
tower: one patch per visual token."""

from typing import Any

import torch
from transformers import LlavaConfig, Mistral3Config, MistralConfig, PixtralVisionConfig

from .base import BREAK, END, IMAGE, PATCH, Family, ImageInputs, Size, decoder, tower


class Mistral3(Family):
    """token: the side of a visual token in pixels."""

    class_name = "Mistral3ForConditionalGeneration"
    token = 2 * PATCH
    sizes = ((24, 32), (40, 16), (32, 32))  # 3 x 4, 5 x 2 and 4 x 4 visual tokens

    def config(self) -> Any:
        return Mistral3Config(
            vision_config=PixtralVisionConfig(**tower(64)),
            text_config=MistralConfig(**decoder(head_dim=8), sliding_window=None),
            image_token_index=IMAGE,
        )

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
    class_name = "LlavaForConditionalGeneration"
    token = PATCH
    sizes = ((16, 20), (24, 12), (20, 20))  # 4 x 5, 6 x 3 and 5 x 5 visual tokens

    def config(self) -> Any:
        return LlavaConfig(
            vision_config=PixtralVisionConfig(**tower(64)),
            text_config=MistralConfig(**decoder(head_dim=8), sliding_window=None),
            image_token_index=IMAGE,
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
        )


def padded(image: ImageInputs, height: int, width: int) -> ImageInputs:
    """Return the image with its pixels padded with zeros, which the model cuts off again."""
    pixels = image["pixel_values"]
    fill = (0, width - pixels.shape[3], 0, height - pixels.shape[2])
    return {**image, "pixel_values": torch.nn.functional.pad(pixels, fill)}

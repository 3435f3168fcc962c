"""Families that give the model crops of an image and the whole image: Step 3.7 and Unlimited-OCR."""

from typing import Any

import torch
from transformers import Step3p7Config, UnlimitedOcrConfig, UnlimitedOcrTextConfig, UnlimitedOcrVisionConfig
from transformers.models.step3p7.configuration_step3p7 import Step3p7TextConfig, Step3p7VisionConfig
from transformers.models.unlimited_ocr.configuration_unlimited_ocr import (
    UnlimitedOcrSamVisionConfig,
    UnlimitedOcrVisionEncoderConfig,
)

from helpers.families.base import BREAK, END, IMAGE, START, ImageInputs, Size, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.llava import Llava

CROP_START, CROP_END = 88, 89


class Crops(CommonFamily, Llava):
    """whole, crop: the sides of the image and of a crop in pixels; 16 of them make a visual token."""

    whole, crop = 64, 32
    # Two crops, none, two. Sizes are in pixels of the crops.
    sizes = ((32, 64), (32, 32), (64, 32))

    def grid(self, size: Size) -> tuple[int, int]:
        """Return rows and columns of crops; none if there would be only one."""
        rows, columns = size[0] // self.crop, size[1] // self.crop
        return (0, 0) if rows * columns == 1 else (rows, columns)

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        rows, columns = self.grid(size)
        return {
            "pixel_values": torch.randn(1, 3, self.whole, self.whole, generator=generator),
            "pixel_values_local": torch.randn(rows * columns, 3, self.crop, self.crop, generator=generator),
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

    class_name = "Step3p7ForConditionalGeneration"

    def config(self) -> Any:
        text = decoder(
            head_dim=8,
            layer_types=["full_attention", "sliding_attention"],
            sliding_window=24,
            num_sliding_attention_heads=6,
            mlp_layer_types=["dense", "sparse"],
            n_routed_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            share_expert_dim=24,
        )
        vision = Step3p7VisionConfig(**tower(self.whole), mlp_ratio=1.5, max_position_embeddings=256)
        return Step3p7Config(vision_config=vision, text_config=Step3p7TextConfig(**text), image_token_id=IMAGE)

    def block(self, size: Size) -> list[int]:
        rows, columns = self.grid(size)
        ids = []
        for _ in range(rows):
            ids += [CROP_START, *[IMAGE] * (self.crop // 16) ** 2, CROP_END] * columns + [BREAK]
        return [*ids, START, *[IMAGE] * (self.whole // 16) ** 2, END]


class UnlimitedOcr(Crops):
    """The crops as one canvas, the image, and a separator, with newline tokens. Answers have a window, which is longer
    than any answer in the tests that all families share."""

    class_name = "UnlimitedOcrForConditionalGeneration"
    window = 64

    def config(self) -> Any:
        sam = UnlimitedOcrSamVisionConfig(
            **tower(self.whole, mlp_dim=48, output_channels=16, window_size=6, global_attn_indexes=[0, 2]),
            downsample_channels=[16, 32],
        )
        encoder = UnlimitedOcrVisionEncoderConfig(**{**tower(self.whole), "image_size": 16})
        text = decoder(
            n_routed_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            n_shared_experts=1,
            mlp_layer_types=["dense", "sparse"],
            sliding_window=self.window,
            num_key_value_heads=4,
        )
        return UnlimitedOcrConfig(
            vision_config=UnlimitedOcrVisionConfig(sam_config=sam, encoder_config=encoder),
            text_config=UnlimitedOcrTextConfig(**text),
            image_token_id=IMAGE,
        )

    def block(self, size: Size) -> list[int]:
        (rows, columns), side, part = self.grid(size), self.whole // 16, self.crop // 16
        return [IMAGE] * (rows * part * (columns * part + 1) + side * (side + 1) + 1)

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        rows, columns = self.grid(size)
        return {**super().image_inputs(size, generator), "patches_grid": torch.tensor([[columns, rows]])}

    def join(self, images: list[ImageInputs], per_row: list[int]) -> dict[str, Any]:
        out = super().join(images, per_row)
        out["patches_grid"] = out["patches_grid"].tolist()
        return out

"""Idefics2: an image of any size is resampled to a fixed number of tokens."""

from typing import Any

import torch
from transformers import Idefics2Config, MistralConfig
from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig, Idefics2VisionConfig

from helpers.families.base import IMAGE, START, ImageInputs, Size, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.idefics import Idefics3

LATENTS, LARGEST = 8, 24


class Idefics2(CommonFamily, Idefics3):
    class_name = "Idefics2ForConditionalGeneration"
    sizes = ((24, 24), (16, 24))

    def config(self) -> Any:
        perceiver = Idefics2PerceiverConfig(
            hidden_size=32,
            resampler_n_latents=LATENTS,
            resampler_depth=2,
            resampler_n_heads=4,
            resampler_head_dim=8,
            num_key_value_heads=2,
        )
        return Idefics2Config(
            vision_config=Idefics2VisionConfig(**tower(LARGEST)),
            perceiver_config=perceiver,
            text_config=MistralConfig(**decoder(head_dim=8), sliding_window=None),
            image_token_id=IMAGE,
        )

    def block(self, size: Size) -> list[int]:
        return [START, *[IMAGE] * LATENTS, START]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        real = torch.zeros(1, LARGEST, LARGEST).long()
        real[:, : size[0], : size[1]] = 1
        pixels = torch.randn(1, 3, LARGEST, LARGEST, generator=generator)
        return {"pixel_values": pixels * real[:, None], "pixel_attention_mask": real}

"""DeepSeek-VL, its hybrid with a second tower for high resolution, and Janus with the same tower, which also generates
images."""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    DeepseekVLConfig,
    DeepseekVLHybridConfig,
    JanusConfig,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    SamVisionConfig,
    SiglipVisionConfig,
)

from helpers.families.base import END, IMAGE, PATCH, START, ImageInputs, Size, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.llava import SIDE, Llava

FINE = 32  # side in pixels of an image for the high-resolution tower


class DeepseekVL(CommonFamily, Llava):
    class_name = "DeepseekVLForConditionalGeneration"

    def config(self) -> Any:
        return DeepseekVLConfig(
            vision_config=SiglipVisionConfig(**tower(SIDE), vision_use_head=False),
            text_config=LlamaConfig(**decoder()),
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )


class DeepseekVLHybrid(DeepseekVL):
    class_name = "DeepseekVLHybridForConditionalGeneration"

    def config(self) -> Any:
        fine = SamVisionConfig(
            **tower(FINE, patch_size=2, mlp_dim=48, output_channels=8, window_size=4, global_attn_indexes=[1])
        )
        return DeepseekVLHybridConfig(
            vision_config=SiglipVisionConfig(**tower(SIDE), vision_use_head=False),
            high_res_vision_config=fine,
            text_config=LlamaConfig(**decoder()),
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        fine = torch.randn(1, 3, FINE, FINE, generator=generator)
        return {**super().image_inputs(size, generator), "high_res_pixel_values": fine}


class Janus(DeepseekVL):
    """Every image has a marker before and after it."""

    class_name = "JanusForConditionalGeneration"

    def config(self) -> Any:
        codes = JanusVQVAEConfig(
            embed_dim=8,
            num_embeddings=16,
            latent_channels=8,
            base_channels=32,
            channel_multiplier=[1, 1],
            num_res_blocks=1,
            projection_dim=32,
            image_token_embed_dim=32,
        )
        vision = tower(SIDE, projection_dim=32, num_image_tokens=(SIDE // PATCH) ** 2)
        return JanusConfig(
            vision_config=JanusVisionConfig(**vision),
            vq_config=codes,
            text_config=LlamaConfig(**decoder()),
            image_token_id=IMAGE,
            tie_word_embeddings=False,
        )

    def block(self, size: Size) -> list[int]:
        return [START, *super().block(size), END]


def drawn(model: Any, ids: Tensor) -> Tensor:
    """Return the codes of an image that a Janus generates for a text prompt."""
    model.generation_config.generation_kwargs = {"boi_token_id": START}
    return model.generate(ids, attention_mask=torch.ones_like(ids), generation_mode="image", do_sample=False)

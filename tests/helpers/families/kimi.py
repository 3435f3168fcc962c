"""Kimi K2.5: images of any size, and videos in chunks of four frames, which the tower sees together and averages."""

from typing import Any

import torch
from torch import Tensor
from transformers import Kimi_K25Config

from .base import BREAK, END, IMAGE, PATCH, START, VIDEO, ImageInputs, Size, decoder, tower
from .common import CommonFamily
from .qwen_vl import MERGE, QwenVL


class KimiK25(CommonFamily, QwenVL):
    """Keys and values come from one latent vector per token; the second layer has experts."""

    class_name = "Kimi_K25ForConditionalGeneration"
    video_sizes = ((4, 32, 24), (2, 24, 24))  # one chunk each: 4 x 3 and 3 x 3 visual tokens
    volatile = ()

    def config(self) -> Any:
        vision = tower(0, pos_emb_height=8, pos_emb_width=8)
        del vision["image_size"]
        text = decoder(
            num_key_value_heads=4,
            q_lora_rank=16,
            kv_lora_rank=16,
            qk_rope_head_dim=4,
            qk_nope_head_dim=8,
            v_head_dim=8,
            first_k_dense_replace=1,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            moe_intermediate_size=24,
        )
        return Kimi_K25Config(
            vision_config=vision,
            text_config=text,
            projection_hidden_size=32,
            tie_word_embeddings=False,
            **self.tokens(),
        )

    def grid(self, size: Size) -> list[int]:
        frames, height, width = size if len(size) == 3 else (1, *size)
        return [frames, height // PATCH, width // PATCH]

    def block(self, size: Size) -> list[int]:
        _, h, w = self.grid(size)
        if len(size) == 2:
            return [START, *[IMAGE] * (h * w // MERGE**2), END]
        timestamp = BREAK
        return [timestamp, START, *[VIDEO] * (h * w // MERGE**2), END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        t, h, w = self.grid(size)
        pixels = torch.randn(t * h * w, 3, PATCH, PATCH, generator=generator)
        if len(size) == 3:
            return {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([[t, h, w]])}
        return {"pixel_values": pixels, "image_grid_thw": torch.tensor([[t, h, w]])}

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {}

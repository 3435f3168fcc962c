"""Qwen3-VL with experts, served by the generic adapter."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3VLMoeConfig

from .base import decoder
from .common import CommonFamily
from .qwen_vl import Qwen3VL


class Qwen3VLMoe(CommonFamily, Qwen3VL):
    class_name = "Qwen3VLMoeForConditionalGeneration"

    def config(self) -> Any:
        vision = self.vision(out_hidden_size=32, num_position_embeddings=64, deepstack_visual_indexes=[0, 1])
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
        text = decoder(rope_parameters=rope, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
        return Qwen3VLMoeConfig(vision_config=vision, text_config=text, **self.tokens())

"""Qwen3-VL with experts, and Cosmos 3, which is Qwen3-VL by another name."""

from typing import Any

import transformers
from transformers import Qwen3VLMoeConfig

from helpers.families.base import decoder
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import Qwen3VL


class Qwen3VLMoe(MRope, Qwen3VL):
    class_name = "Qwen3VLMoeForConditionalGeneration"

    def config(self) -> Any:
        vision = self.vision(out_hidden_size=32, num_position_embeddings=64, deepstack_visual_indexes=[0, 1])
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
        text = decoder(rope_parameters=rope, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
        return Qwen3VLMoeConfig(vision_config=vision, text_config=text, **self.tokens())


class Cosmos3Omni(MRope, Qwen3VL):
    """The code of Qwen3-VL under another configuration."""

    class_name = "Cosmos3OmniForConditionalGeneration"

    def config(self) -> Any:
        settings = Qwen3VL.config(self).to_dict()
        kept = {name: settings[name] for name in ("vision_config", "text_config", *self.tokens())}
        return transformers.Cosmos3OmniConfig(**kept)

"""Qwen3.5, with and without experts: three in four layers have a state instead of keys."""

from typing import Any

from transformers import Qwen3_5Config, Qwen3_5MoeConfig

from helpers.families.base import decoder
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import Qwen3VL


class Qwen3_5(MRope, Qwen3VL):
    class_name = "Qwen3_5ForConditionalGeneration"
    contract = "never seen"

    def layers(self) -> Any:
        """Return the settings of its decoder layers. A quarter of each head is rotated. Linear attention sometimes
        returns nearly zero, and with the usual epsilon the norm after it would enlarge rounding errors to 5e-5."""
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
        return decoder(
            rope_parameters={**rope, "partial_rotary_factor": 0.25},
            head_dim=32,
            layer_types=["linear_attention", "full_attention"],
            rms_norm_eps=1e-3,
            linear_conv_kernel_dim=4,
            linear_key_head_dim=32,
            linear_value_head_dim=16,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
        )

    def tower(self) -> Any:
        return self.vision(out_hidden_size=32, num_position_embeddings=64)

    def config(self) -> Any:
        return Qwen3_5Config(vision_config=self.tower(), text_config=self.layers(), **self.tokens())


class Qwen3_5Moe(Qwen3_5):
    class_name = "Qwen3_5MoeForConditionalGeneration"

    def config(self) -> Any:
        experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
        text = {**self.layers(), **experts, "shared_expert_intermediate_size": 24}
        del text["intermediate_size"]
        return Qwen3_5MoeConfig(vision_config=self.tower(), text_config=text, **self.tokens())

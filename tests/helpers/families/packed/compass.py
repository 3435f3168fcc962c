"""Cohere Compass: Qwen3-VL's tower and its features between layers, in front of Cohere's language model."""

from typing import Any

from transformers import CohereCompassConfig

from helpers.families.base import decoder
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import Qwen3VL


class CohereCompass(MRope, Qwen3VL):
    """One layer with a sliding window, and one without, which does not rotate."""

    class_name = "CohereCompassForConditionalGeneration"

    def config(self) -> Any:
        vision = self.vision(out_hidden_size=32, num_position_embeddings=64, deepstack_visual_indexes=[0, 1])
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
        text = decoder(
            layer_types=["sliding_attention", "full_attention"],
            sliding_window=12,
            logit_scale=1.0,
            rope_parameters={"sliding_attention": rope, "full_attention": None},
        )
        return CohereCompassConfig(vision_config=vision, text_config=text, **self.tokens())

"""Muse Glimmer and Muse Spark: images and videos of any size, and a decoder layer with a sliding window."""

from typing import Any

from torch import Tensor
from transformers import MuseGlimmerConfig, MuseSparkConfig

from helpers.families.base import BREAK, END, EOS, IMAGE, START, VIDEO, Size, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.qwen_vl import MERGE, QwenVL


class MuseGlimmer(CommonFamily, QwenVL):
    class_name = "MuseGlimmerForConditionalGeneration"
    volatile = ()

    def parts(self, **settings: Any) -> dict[str, Any]:
        vision = tower(
            0,
            pos_emb_height=4,
            pos_emb_width=4,
            patch_temporal=2,
            merge_size=MERGE,
            layer_types=["window_attention"] * 2 + ["full_attention"],
        )
        del vision["image_size"]
        text = decoder(
            head_dim=8,
            num_hidden_layers=4,
            layer_types=["sliding_attention", "full_attention"] * 2,
            sliding_window=12,
            output_multiplier=1.0,
            qk_scale_factor=1.0,
            **settings,
        )
        return {
            "vision_config": vision,
            "text_config": text,
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
            "out_hidden_size": 128,
            "projector_hidden_size": 32,
        }

    def config(self) -> Any:
        return MuseGlimmerConfig(**self.parts())

    def block(self, size: Size) -> list[int]:
        """Return the IDs, with timestamps and separators between the steps of a video."""
        t, h, w = self.grid(size)
        n_visual = h * w // MERGE**2
        if len(size) == 2:
            return [START, *[IMAGE] * n_visual, END]
        timestamp, separator = 88, BREAK
        steps = [token for _ in range(t) for token in (timestamp, *[VIDEO] * n_visual, separator)]
        return [START, *steps[:-1], END]

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {}


class MuseSpark(MuseGlimmer):
    """With experts, and an audio tower that tests do not use."""

    class_name = "MuseSparkForConditionalGeneration"

    def config(self) -> Any:
        experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "moe_hidden_size": 32}
        audio = {
            "patch_sizes": [4, 2],
            "hidden_sizes": [8, 16],
            "depths": [1, 1],
            "num_hidden_layers": 2,
            "out_hidden_size": 32,
        }
        return MuseSparkConfig(**self.parts(**experts), audio_config=audio, audio_token_id=EOS)

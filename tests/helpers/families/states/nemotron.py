"""Nemotron-H Omni: one layer each of state space, experts, attention and a plain MLP."""

from typing import Any

import torch
from transformers import NemotronH_Omni_Reasoning_V3_Config

from helpers.families.base import END, IMAGE, PATCH, START, ImageInputs, Size, decoder
from helpers.families.common import CommonFamily
from helpers.families.qwen_vl import MERGE

STEP = 2  # frames


class NemotronOmni(CommonFamily):
    class_name = "NemotronH_Omni_Reasoning_V3"
    contract = "never seen"
    sizes = ((32, 24), (24, 40), (32, 32))
    video_sizes = ((4, 24, 16),)  # all videos of a call have the same size
    mixes = False
    numbered = False

    def repeats_rows(self) -> bool:
        return False

    def config(self) -> Any:
        text = decoder(
            layers_block_type=["linear_attention", "moe", "full_attention", "mlp"],
            head_dim=8,
            ssm_state_size=16,
            mamba_num_heads=4,
            mamba_head_dim=16,
            n_groups=2,
            chunk_size=16,
            n_routed_experts=4,
            moe_intermediate_size=24,
            moe_shared_expert_intermediate_size=24,
        )
        del text["num_hidden_layers"]
        vision = {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "patch_size": PATCH,
            "image_size": 32,
            "max_img_size": 64,
            "num_cls_tokens": 2,
            "num_registers": 2,
            "video_temporal_patch_size": STEP,
        }
        return NemotronH_Omni_Reasoning_V3_Config(
            vision_config=vision,
            text_config=text,
            projector_hidden_size=32,
            vision_hidden_size=32,
            image_token_id=IMAGE,
            video_token_id=None,
        )

    def block(self, size: Size) -> list[int]:
        *frames, height, width = size
        step = [START, *[IMAGE] * (height // PATCH // MERGE * (width // PATCH // MERGE)), END]
        timestamp = 2
        return [timestamp, *step] * (frames[0] // STEP) if frames else step

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        *frames, height, width = size
        if frames:
            shape = (1, frames[0] // STEP, STEP * 3, height, width)
            return {"pixel_values_videos": torch.randn(shape, generator=generator)}
        grid = torch.tensor([[height // PATCH, width // PATCH]])
        pixels = torch.randn(int(grid.prod()), 3 * PATCH**2, generator=generator)
        return {"pixel_values": pixels, "image_grid_hw": grid}

"""ERNIE 4.5 VL: experts for text and others for images; pairs of frames are merged after the tower."""

from typing import Any

import torch
from torch import Tensor
from transformers import Ernie4_5_VLMoeConfig

from helpers.families.base import END, IMAGE, NO_EMBEDS, PATCH, START, VIDEO, VOCAB, ImageInputs, Size, decoder
from helpers.families.packed.mrope import MRope
from helpers.families.qwen_vl import MERGE

VIDEO_START, VIDEO_END, N_TOKENS = VOCAB, VOCAB + 1, VOCAB + 2


class Ernie4_5VL(MRope):
    """The experts for images also process markers."""

    class_name = "Ernie4_5_VLMoeForConditionalGeneration"
    video_sizes = ((4, 32, 24), (6, 24, 24))  # 2 pairs of 4 x 3, 3 of 3 x 3

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cannot["embedded"] = NO_EMBEDS
        self.cannot["uncached"] = (IndexError, "shape of the mask")  # its token types do not grow

    def config(self) -> Any:
        vision = self.vision()
        del vision["temporal_patch_size"]
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
        experts = {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": [24, 16], "moe_num_shared_experts": 1}
        kinds = ["dense", "sparse", "sparse", "sparse"]  # as many layers as the deepest model in tests
        text = decoder(rope_parameters=rope, vocab_size=N_TOKENS, mlp_layer_types=kinds, **experts)
        tokens: Any = {
            "image_token_id": IMAGE,
            "video_token_id": VIDEO,
            "image_start_token_id": START,
            "image_end_token_id": END,
            "video_start_token_id": VIDEO_START,
            "video_end_token_id": VIDEO_END,
        }
        return Ernie4_5_VLMoeConfig(vision_config=vision, text_config=text, tie_word_embeddings=False, **tokens)

    def grid(self, size: Size) -> list[int]:
        frames, height, width = size if len(size) == 3 else (1, *size)
        return [frames, height // PATCH, width // PATCH]

    def block(self, size: Size) -> list[int]:
        t, h, w = self.grid(size)
        if len(size) == 2:
            return [START, *[IMAGE] * (h * w // MERGE**2), END]
        return [VIDEO_START, *[VIDEO] * (t // 2 * h * w // MERGE**2), VIDEO_END]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        grid = torch.tensor([self.grid(size)])
        pixels = torch.randn(int(grid.prod()), 3 * PATCH**2, generator=generator)
        if len(size) == 3:
            return {"pixel_values_videos": pixels, "video_grid_thw": grid}
        return {"pixel_values": pixels, "image_grid_thw": grid}

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        of_image = (ids == START) | (ids == END)
        of_video = (ids == VIDEO_START) | (ids == VIDEO_END)
        types = super().token_types(ids)["mm_token_type_ids"]
        return {"mm_token_type_ids": types, "moe_mm_token_type_ids": types + of_image.int() + 2 * of_video.int()}

"""LLaVA-OneVision 1.5 and Ovis 2.5, whose towers see every frame of a video by itself, without merging it with
another."""

from typing import Any

import torch
import transformers
from torch import Tensor

from helpers.families.base import END, IMAGE, NO_EMBEDS, PATCH, START, VIDEO, VOCAB, ImageInputs, Size, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.qwen_vl import MERGE, PackedImages

#: Older versions lack both classes.
LIBRARY: Any = transformers
#: The marks around a video of Ovis 2.5, which no text and no answer has.
VIDEO_START, VIDEO_END = VOCAB, VOCAB + 1


class FramesAlone(CommonFamily, PackedImages):
    video_sizes = ((2, 32, 24), (3, 24, 24))  # 2 frames of 4 x 3 visual tokens, 3 of 3 x 3

    def grid(self, size: Size) -> list[int]:
        frames, height, width = size if len(size) == 3 else (1, *size)
        return [frames, height // PATCH, width // PATCH]

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        grid = torch.tensor([self.grid(size)])
        pixels = torch.randn(int(grid.prod()), 3 * PATCH**2, generator=generator)
        if len(size) == 3:
            return {"pixel_values_videos": pixels, "video_grid_thw": grid}
        return {"pixel_values": pixels, "image_grid_thw": grid}

    def token_types(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": ((ids == IMAGE) + 2 * (ids == VIDEO)).int()}


class LlavaOnevision15(FramesAlone):
    class_name = "LlavaOnevision15ForConditionalGeneration"

    def config(self) -> Any:
        vision = self.vision(out_hidden_size=32)
        del vision["temporal_patch_size"]
        return LIBRARY.LlavaOnevision15Config(
            vision_config=vision,
            text_config=decoder(model_type="qwen3", head_dim=8, tie_word_embeddings=False),
            tie_word_embeddings=False,
            **self.tokens(),
        )


class Ovis25(FramesAlone):
    """One layer of the tower attends within windows of 2 x 2 visual tokens. The marks around images and videos become
    embeddings from the visual vocabulary."""

    class_name = "Ovis2_5ForConditionalGeneration"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.cannot["embedded"] = NO_EMBEDS

    def config(self) -> Any:
        kinds = ["window_attention", "full_attention", "full_attention"]
        vision = tower(8 * PATCH, window_size=2 * MERGE * PATCH, layer_types=kinds, vocab_size=40)
        return LIBRARY.Ovis2_5Config(
            vision_config=vision,
            text_config=decoder(model_type="qwen3", head_dim=8, tie_word_embeddings=False, vocab_size=VOCAB + 2),
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            image_start_token_id=START,
            image_end_token_id=END,
            video_start_token_id=VIDEO_START,
            video_end_token_id=VIDEO_END,
            tie_word_embeddings=False,
        )

    def block(self, size: Size) -> list[int]:
        t, h, w = self.grid(size)
        n_visual = t * h * w // MERGE**2
        if len(size) == 2:
            return [START, *[IMAGE] * n_visual, END]
        return [VIDEO_START, *[VIDEO] * n_visual, VIDEO_END]

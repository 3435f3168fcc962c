"""VideoLLaMA 3: every image and video has its own number of patches per visual token."""

from typing import Any

import torch
from transformers import VideoLlama3Config

from helpers.families.base import BREAK, IMAGE, PATCH, VIDEO, ImageInputs, Size, decoder, tower
from helpers.families.common import CommonFamily
from helpers.families.qwen_vl import PackedImages

#: As in its processors: an image's patches are not merged, those of a video are merged two by two.
IMAGE_MERGE, VIDEO_MERGE = 1, 2


class VideoLlama3(CommonFamily, PackedImages):
    """A timestamp before every frame of a video."""

    class_name = "VideoLlama3ForConditionalGeneration"
    sizes = ((16, 16), (24, 16), (12, 20))  # 4 x 4, 6 x 4 and 3 x 5 visual tokens
    video_sizes = ((2, 32, 24), (3, 24, 24))  # 2 frames of 4 x 3, 3 of 3 x 3

    def config(self) -> Any:
        vision = tower(0, num_channels=3)
        del vision["image_size"]
        text = decoder(model_type="qwen2", tie_word_embeddings=False)
        return VideoLlama3Config(vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO)

    def grid(self, size: Size) -> list[int]:
        frames, height, width = size if len(size) == 3 else (1, *size)
        return [frames, height // PATCH, width // PATCH]

    def block(self, size: Size) -> list[int]:
        t, h, w = self.grid(size)
        if len(size) == 2:
            return [IMAGE] * (h * w // IMAGE_MERGE**2)
        timestamp = BREAK
        return [timestamp, *[VIDEO] * (h * w // VIDEO_MERGE**2)] * t

    def image_inputs(self, size: Size, generator: torch.Generator) -> ImageInputs:
        grid = torch.tensor([self.grid(size)])
        pixels = torch.randn(int(grid.prod()), 3 * PATCH**2, generator=generator)
        if len(size) == 2:
            merge = torch.tensor([IMAGE_MERGE])
            return {"pixel_values": pixels, "image_grid_thw": grid, "image_merge_sizes": merge}
        return {
            "pixel_values_videos": pixels,
            "video_grid_thw": grid,
            "video_merge_sizes": torch.tensor([VIDEO_MERGE]),
            "video_compression_mask": torch.ones(int(grid.prod()) // VIDEO_MERGE**2, dtype=torch.bool),
        }

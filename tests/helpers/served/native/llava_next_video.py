"""A tiny LLaVA-NeXT-Video, saved as vLLM and transformers load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from helpers.served.models import IMAGE, decoder, published_tower, save, tokenizer, tower

NEXT_VIDEO = "<video>"
#: In pixels. vLLM divides the side of a frame by the square of this.
PATCH = 8


def save_llava_next_video(folder: Path, **settings: Any) -> None:
    """LLaVA-NeXT-Video with frames of 8 x 8 patches and 4 x 4 visual tokens."""
    side, words = 8 * PATCH, tokenizer(IMAGE, NEXT_VIDEO)
    pinpoints = [[side, 2 * side], [2 * side, side]]
    config = transformers.LlavaNextVideoConfig(
        vision_config=transformers.CLIPVisionConfig(**tower(side, patch_size=PATCH)),
        text_config=transformers.LlamaConfig(**decoder(len(words), **settings)),
        image_token_index=words.convert_tokens_to_ids(IMAGE),
        video_token_index=words.convert_tokens_to_ids(NEXT_VIDEO),
        image_grid_pinpoints=pinpoints,
        spatial_pool_stride=2,
    )
    squares = {"size": {"height": side, "width": side}, "crop_size": {"height": side, "width": side}}
    processor = transformers.LlavaNextVideoProcessor(
        image_processor=transformers.LlavaNextImageProcessor(**squares, image_grid_pinpoints=pinpoints),
        video_processor=transformers.LlavaNextVideoVideoProcessor(**squares),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        video_token=NEXT_VIDEO,
    )
    save(transformers.LlavaNextVideoForConditionalGeneration(config), processor, folder, published_tower)

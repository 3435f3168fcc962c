"""Tiny models whose towers get the patches of an image in a sequence, saved as vLLM and transformers load them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from helpers.served.models import CHAT, PATCH, decoder, save, tokenizer, tower

PADDLE_IMAGE = "<|IMAGE_START|> <|IMAGE_PLACEHOLDER|> <|IMAGE_END|>"
#: The fewest and the most pixels of an image.
SIZES = {"shortest_edge": (4 * PATCH) ** 2, "longest_edge": (14 * PATCH) ** 2}


def save_paddleocr_vl(folder: Path, **settings: Any) -> None:
    """PaddleOCR-VL with up to 49 visual tokens, each of 2 x 2 patches."""
    start, image, end = PADDLE_IMAGE.split()
    words = tokenizer(start, end, image_token=image)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]}
    config = transformers.PaddleOCRVLConfig(
        vision_config=tower(8 * PATCH, spatial_merge_size=2),
        text_config=decoder(len(words), rope_parameters=rope, tie_word_embeddings=False, **settings),
        image_token_id=words.convert_tokens_to_ids(image),
        vision_start_token_id=words.convert_tokens_to_ids(start),
        vision_end_token_id=words.convert_tokens_to_ids(end),
        tie_word_embeddings=False,
    )
    processor = transformers.PaddleOCRVLProcessor(
        image_processor=transformers.PaddleOCRVLImageProcessor(patch_size=PATCH, size=SIZES),
        tokenizer=words,
        chat_template=CHAT.replace("IMAGE", PADDLE_IMAGE),
    )
    save(transformers.PaddleOCRVLForConditionalGeneration(config), processor, folder, without_position_embeddings)


def without_position_embeddings(name: str, weight: Tensor) -> tuple[str, Tensor]:
    """vLLM resizes those of PaddleOCR-VL's tower otherwise than transformers does, which leaves the rotary ones."""
    return name, torch.zeros_like(weight) if "position_embedding" in name else weight

"""Tiny models whose towers get the patches of an image in a sequence, saved as vLLM and transformers load them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from helpers.served.models import CHAT, N_LAYERS, PATCH, QWEN_IMAGE, QWEN_VIDEO, decoder, save, tokenizer, tower

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
    """Those of PaddleOCR-VL's tower as zeros, because vLLM resizes them otherwise than transformers does. The tower
    still has rotary embeddings."""
    return name, torch.zeros_like(weight) if "position_embedding" in name else weight


def save_exaone4_5(folder: Path, window: int = 4096, **settings: Any) -> None:
    """EXAONE 4.5. One of three layers of its tower has windows, of 2 x 2 visual tokens; one of three decoder layers has
    none, and does not rotate."""
    words = tokenizer(*QWEN_IMAGE.split(), *QWEN_VIDEO.split())
    _, image, _ = words.convert_tokens_to_ids(QWEN_IMAGE.split())
    _, video, _ = words.convert_tokens_to_ids(QWEN_VIDEO.split())
    vision = {"depth": N_LAYERS, "num_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 96}
    vision |= {"patch_size": PATCH, "window_size": 4 * PATCH, "fullatt_block_indexes": [0, 2], "out_hidden_size": 64}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    text = decoder(len(words), model_type="exaone4", sliding_window=window, layer_types=kinds, **settings)
    config = transformers.Exaone4_5_Config(
        vision_config=vision, text_config=text, image_token_id=image, video_token_id=video, tie_word_embeddings=False
    )
    processor = transformers.Exaone4_5_Processor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=PATCH, size=SIZES),
        tokenizer=words,
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=PATCH),
        chat_template=CHAT.replace("IMAGE", QWEN_IMAGE),
    )
    save(transformers.Exaone4_5_ForConditionalGeneration(config), processor, folder)

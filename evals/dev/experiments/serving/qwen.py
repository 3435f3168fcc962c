"""A Qwen2.5-VL with random weights for vLLM to load: times do not depend on their values."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

IMAGE, VIDEO, START, END = "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
PROMPT = f"{START} {IMAGE} {END} " + " ".join(f"w{i}" for i in range(20))
TOWER = {
    "depth": 16,
    "hidden_size": 640,
    "intermediate_size": 1712,
    "num_heads": 8,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15],
}
TEXT = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
}


def write(folder: Path) -> None:
    """Write the model, with a vocabulary of numbered words."""
    words = ["<pad>", "<end>", IMAGE, VIDEO, START, END, *(f"w{i}" for i in range(994))]
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokens.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=[IMAGE, VIDEO, START, END],
    )
    config = Qwen2_5_VLConfig(
        vision_config={**TOWER, "out_hidden_size": TEXT["hidden_size"]},
        text_config={**TEXT, "vocab_size": len(words), "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None},
        image_token_id=2,
        video_token_id=3,
        vision_start_token_id=4,
        vision_end_token_id=5,
    )
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen2_5_VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor()).save_pretrained(folder)

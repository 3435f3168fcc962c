"""Tiny LLaVA models with random weights, and prompts for them. No network, no processor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

#: What the cache is called in arguments and outputs; it was renamed in transformers 5.2x.
CACHE = "cache" if "cache" in signature(LlavaForConditionalGeneration.forward).parameters else "past_key_values"
#: Whether `generate` encodes the pictures before it calls the model.
ENCODES_FIRST = "mm_encoder_outputs" in signature(LlavaForConditionalGeneration.forward).parameters
IMAGE, PAD, EOS, VOCAB = 90, 0, 91, 96
PATCH, SIDE = 4, 24  # pixels; 6 x 6 visual tokens a picture

TOWERS: dict[str, Any] = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig, "dinov2": Dinov2Config}

#: A different language model under each tower, for variety at no cost.
BACKBONES: dict[str, Any] = {
    "clip": LlamaConfig,
    "siglip": Qwen2Config,
    "dinov2": partial(MistralConfig, sliding_window=None),
}


def tiny_llava(tower: str = "clip", seed: int = 0, attention: str = "sdpa", **settings: Any) -> Any:
    """A LlavaForConditionalGeneration in float32 whose attention is far from uniform."""
    torch.manual_seed(seed)
    vision = TOWERS[tower](
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = BACKBONES[tower](
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCAB,
        max_position_embeddings=512,
        pad_token_id=PAD,
        bos_token_id=1,
        eos_token_id=EOS,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        vision_feature_select_strategy="full" if tower == "siglip" else "default",
        **settings,
    )
    config._attn_implementation = attention
    model: Any = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    model.generation_config.eos_token_id = None  # answers always have the length that a test asks for
    model.generation_config.pad_token_id = PAD
    model.generation_config.suppress_tokens = [IMAGE]  # a text token for the oracle, were it answered
    return model


def prompt(
    images_per_row: list[int],
    texts: list[int] | None = None,
    seed: int = 1,
    padding: str = "left",
    height: int = SIDE,
    width: int = SIDE,
) -> dict[str, Any]:
    """Input IDs, attention mask and pictures of a batch; `texts` are the numbers of text tokens around each image."""
    generator = torch.Generator().manual_seed(seed)
    texts = texts or [3 + 2 * row for row in range(len(images_per_row))]

    def text(n: int) -> list[int]:
        return torch.randint(2, IMAGE, (n,), generator=generator).tolist()

    n_visual = (height // PATCH) * (width // PATCH)
    rows = []
    for n_images, n_text in zip(images_per_row, texts, strict=True):
        row = text(n_text)
        for _ in range(n_images):
            row += [IMAGE] * n_visual + text(n_text)
        rows.append(row)
    length = max(map(len, rows))
    pads = [[PAD] * (length - len(row)) for row in rows]
    ids = [pad + row if padding == "left" else row + pad for row, pad in zip(rows, pads, strict=True)]
    ones = [[1] * len(row) for row in rows]
    zeros = [[0] * len(pad) for pad in pads]
    mask = [zero + one if padding == "left" else one + zero for one, zero in zip(ones, zeros, strict=True)]
    batch: dict[str, Any] = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    if sum(images_per_row):
        pictures = torch.randn(sum(images_per_row), 3, height, width, generator=generator)
        batch["pixel_values"] = pictures
    return batch


#: The contract matrix's models: name -> (the class that an adapter is registered for, builder).
BUILDERS: dict[str, tuple[str, Callable[[], Any]]] = {
    f"llava-{tower}": ("LlavaForConditionalGeneration", partial(tiny_llava, tower)) for tower in TOWERS
}

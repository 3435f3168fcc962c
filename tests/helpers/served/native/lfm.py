"""A tiny LFM2-VL, saved as vLLM and transformers load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from helpers.served.family import OWN_ROTATION, Family, Far
from helpers.served.models import CHAT, IMAGE, decoder, published_tower, save, tokenizer, tower

PATCH = 8
#: Visual tokens of 2 x 2 patches.
SIZES = {"tile_size": 8 * PATCH, "min_image_tokens": 4, "max_image_tokens": 36, "max_num_patches": 144}


def save_lfm2_vl(folder: Path, **settings: Any) -> None:
    """LFM2-VL with up to 36 visual tokens, or up to four tiles of 16 and an overview. One of three decoder layers
    attends; the others are convolutions."""
    headers = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)]
    words = tokenizer(
        "<|img_thumbnail|>",
        *headers,
        image_token=IMAGE,
        image_start_token="<|image_start|>",
        image_end_token="<|image_end|>",
    )
    vision = {**tower(0, num_patches=64, vision_use_head=False), "patch_size": PATCH}
    del vision["image_size"]
    text = transformers.Lfm2Config(
        **decoder(len(words), block_dim=64, conv_dim=64, **settings),  # only vLLM reads these names
        layer_types=["conv", "full_attention", "conv"],
        block_auto_adjust_ff_dim=False,
    )
    config = transformers.Lfm2VlConfig(
        vision_config={**vision, "model_type": "siglip2_vision_model"},
        text_config=text,
        image_token_id=words.convert_tokens_to_ids(IMAGE),
        projector_hidden_size=64,
    )
    processor = transformers.Lfm2VlProcessor(
        image_processor=transformers.Lfm2VlImageProcessor(encoder_patch_size=PATCH, max_tiles=4, **SIZES),
        tokenizer=words,
        chat_template=CHAT.replace("IMAGE", IMAGE),
    )
    save(transformers.Lfm2VlForConditionalGeneration(config), processor, folder, published_tower)


def take_older_transformers() -> None:
    """Let `patch` accept LFM2-VL in transformers before 5.24, since vLLM uses an older one. A single prompt is pruned
    in 5.19 as in 5.24."""
    from tokenprune.adapters.families.lfm2_vl import Lfm2VlAdapter

    Lfm2VlAdapter.since = (5, 19)


FAMILIES = (
    Family(
        "lfm2_vl",
        "TokenPruneLfm2VL",
        save_lfm2_vl,
        far=Far(256, 8, (140, 112), raises="index out of range"),
        n_blocks=20,
        options=OWN_ROTATION,
    ),
)

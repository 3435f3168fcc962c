"""A tiny Granite 4 Vision, saved as vLLM and transformers load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from helpers.served.family import Family
from helpers.served.models import CHAT, IMAGE, PATCH, decoder, published_tower, save, tokenizer, tower

#: The decoder layers before which features are added: from two encoder layers, and from four groups of patches of one.
DEEP, SPATIAL = [[-3, 1], [-1, 0]], [2, 3, 4, 5]
RATE = "2/4"
MULTIPLIERS = {
    "attention_multiplier": 0.2,
    "embedding_multiplier": 1.5,
    "logits_scaling": 2.0,
    "residual_multiplier": 0.5,
}


def save_granite4_vision(folder: Path, **settings: Any) -> None:
    """Granite 4 Vision with tiles of 8 x 8 patches and 4 x 4 visual tokens, up to four and an overview."""
    side, words = 8 * PATCH, tokenizer(IMAGE)
    pinpoints = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side]]
    text = decoder(len(words), **{"num_hidden_layers": len(DEEP) + len(SPATIAL), **MULTIPLIERS, **settings})
    config = transformers.Granite4VisionConfig(
        vision_config=transformers.SiglipVisionConfig(**tower(side, vision_use_head=False)),
        text_config=transformers.Granite4VisionTextConfig(**text),
        image_token_index=words.convert_tokens_to_ids(IMAGE),
        image_grid_pinpoints=pinpoints,
        vision_feature_select_strategy="full",
        downsample_rate=RATE,
        deepstack_layer_map=DEEP,
        spatial_target_layers=SPATIAL,
    )
    processor = transformers.Granite4VisionProcessor(
        image_processor=transformers.LlavaNextImageProcessor(
            size={"height": side, "width": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=pinpoints,
        ),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        image_token=IMAGE,
        downsample_rate=RATE,
        chat_template=CHAT.replace("IMAGE", IMAGE),
    )
    save(transformers.Granite4VisionForConditionalGeneration(config), processor, folder, published_tower)


FAMILIES = (Family("granite4_vision", "TokenPruneGranite4Vision", save_granite4_vision),)

"""Tiny models with markers between the visual tokens of an image, saved as vLLM and transformers load them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from helpers.served.models import CHAT, PATCH, decoder, save, tokenizer, tower

MISTRAL_IMAGE = "[IMG]"


def save_mistral3(folder: Path, **settings: Any) -> None:
    """Mistral 3 with up to 12 x 12 visual tokens of 2 x 2 patches."""
    side, words = 24 * PATCH, tokenizer(MISTRAL_IMAGE, "[IMG_BREAK]", "[IMG_END]")
    config = transformers.Mistral3Config(
        vision_config=transformers.PixtralVisionConfig(**tower(side)),
        text_config=transformers.MistralConfig(**decoder(len(words), **settings), sliding_window=None),
        image_token_index=words.convert_tokens_to_ids(MISTRAL_IMAGE),
        spatial_merge_size=2,
    )
    processor = transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(size={"longest_edge": side}, patch_size=PATCH),
        tokenizer=words,
        patch_size=PATCH,
        spatial_merge_size=2,
        chat_template=CHAT.replace("IMAGE", MISTRAL_IMAGE),
    )
    save(transformers.Mistral3ForConditionalGeneration(config), processor, folder)

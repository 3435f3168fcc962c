"""A tiny Aria, saved as vLLM and transformers load it."""

# pyright: reportMissingImports=false

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import transformers
from transformers.models.idefics3 import Idefics3VisionConfig

from helpers.served.family import Family
from helpers.served.models import CHAT, decoder, save, tokenizer, tower

ARIA_IMAGE = "<|fim_prefix|> <|img|> <|fim_suffix|>"
#: transformers' processor has this side of an image in its code; here, in 7 x 7 patches.
SIDE, PATCH = 980, 140
N_QUERIES = 36


def save_aria(folder: Path, **settings: Any) -> None:
    """Aria with 36 visual tokens for each image, whose shorter side is padded by up to two of seven patches."""
    start, image, end = ARIA_IMAGE.split()
    words = tokenizer(start, end, image_token=image)
    text = decoder(len(words), moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1, **settings)
    config = transformers.AriaConfig(
        vision_config=Idefics3VisionConfig(**{**tower(SIDE), "patch_size": PATCH}),
        text_config=transformers.AriaTextConfig(**text),
        projector_patch_to_query_dict={(SIDE // PATCH) ** 2: N_QUERIES},
        image_token_index=words.convert_tokens_to_ids(image),
    )
    processor = transformers.AriaProcessor(
        image_processor=transformers.AriaImageProcessor(),
        tokenizer=words,
        size_conversion={SIDE: N_QUERIES},
        chat_template=CHAT.replace("IMAGE", ARIA_IMAGE),
    )
    save(transformers.AriaForConditionalGeneration(config), processor, folder)
    if find_spec("vllm") is not None:
        mask_padding()


@cache
def mask_padding() -> None:
    """Let patches attend only to the image, as in transformers: in vLLM, they also attend to the padding beside it."""
    from vllm.model_executor.models.aria import AriaVisionTransformer

    make = AriaVisionTransformer.__init__

    def masking(self: Any, *args: Any, **named: Any) -> None:
        make(self, *args, **named)
        self.apply_encoder_attention_mask = True

    AriaVisionTransformer.__init__ = masking


FAMILIES = (Family("aria", "TokenPruneAria", save_aria, ARIA_IMAGE),)

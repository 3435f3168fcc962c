"""A tiny MiniCPM-V, saved as vLLM and transformers load it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import transformers
from tokenizers import decoders

from helpers.served.family import M_ROPE_ENDS, Family, Far
from helpers.served.models import CHAT, LINEAR, decoder, save, tower
from helpers.served.native.gemma import words_and_newlines

MINICPM_IMAGE = "<|image_pad|>"
MINICPM_VIDEO = "<|video_pad|>"
TOKENS = {
    "image_token": MINICPM_IMAGE,
    "video_token": MINICPM_VIDEO,
    **{
        f"{kind}_{end}_token": f"<{slash}{kind}>"
        for kind in ("image", "slice", "image_id")
        for end, slash in (("start", ""), ("end", "/"))
    },
}
#: The marks whose IDs 4.7's config has, because they have places on the canvas.
MARKS = ("image_start", "image_end", "slice_start", "slice_end")
#: The side of a visual token, in pixels.
VISUAL = 32


def save_minicpm(folder: Path, name: str = "MiniCPMV4_6", **settings: Any) -> None:
    """MiniCPM-V 4.6 or 4.7 or MiniCPM-OCR, `name` as in its classes, with up to 16 visual tokens, or an overview and up
    to four slices of about as many."""
    words = words_and_newlines(*map(str, range(10)), **TOKENS)
    words.backend_tokenizer.decoder = decoders.Fuse()  # vLLM searches decoded text for an image's number
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    rope["partial_rotary_factor"] = 0.25
    text = decoder(len(words), model_type="qwen3_5_text", rope_parameters=rope, **LINEAR, **settings)
    ocr = name == "MiniCPMOcr"
    side, patch = 4 * VISUAL, VISUAL // (2 if ocr else 4)
    marks = {**{f"{end}_id": TOKENS[f"{end}_token"] for end in MARKS}, "newline_id": "\n"}
    canvas = {name: words.convert_tokens_to_ids(mark) for name, mark in marks.items()} | {"mrope_mode": "canvas"}
    config = getattr(transformers, f"{name}Config")(
        vision_config={**tower(side), "patch_size": patch},
        text_config=text,
        insert_layer_id=0,
        image_token_id=words.convert_tokens_to_ids(MINICPM_IMAGE),
        video_token_id=words.convert_tokens_to_ids(MINICPM_VIDEO),
        tie_word_embeddings=False,
        **({} if ocr else {"image_size": side}),
        **(canvas if name == "MiniCPMV4_7" else {}),
    )
    kind, sizes = name if ocr else "MiniCPMV4_6", {"patch_size": patch, "scale_resolution": side, "max_slice_nums": 4}
    processor = getattr(transformers, f"{name}Processor")(
        image_processor=getattr(transformers, f"{kind}ImageProcessor")(**sizes),
        video_processor=getattr(transformers, f"{kind}VideoProcessor")(**sizes),
        tokenizer=words,
        chat_template=CHAT.replace("IMAGE", MINICPM_IMAGE),
    )
    save(getattr(transformers, f"{name}ForConditionalGeneration")(config), processor, folder)


FAMILIES = (
    Family(
        "minicpmv4_6",
        "TokenPruneMiniCPMV4_6",
        save_minicpm,
        MINICPM_IMAGE,
        far=Far(136, 6, (224, 224), raises=M_ROPE_ENDS),
        n_more=3,
    ),
    Family(
        "minicpmv4_7",
        "TokenPruneMiniCPMV4_7",
        partial(save_minicpm, name="MiniCPMV4_7"),
        MINICPM_IMAGE,
        far=Far(80, 8, (400, 4), raises=M_ROPE_ENDS),
        n_more=3,
    ),
    Family(
        "minicpm_ocr",
        "TokenPruneMiniCPMOcr",
        partial(save_minicpm, name="MiniCPMOcr"),
        MINICPM_IMAGE,
        far=Far(136, 6, (224, 224), raises=M_ROPE_ENDS),
        n_more=3,
    ),
)

"""A tiny Muse Glimmer, saved as vLLM and transformers load it."""

# pyright: reportMissingImports=false, reportCallIssue=false

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import transformers

from helpers.served.family import Family, Far
from helpers.served.models import CHAT, PATCH, decoder, save, tokenizer, tower
from helpers.served.native.packed import rewrite, with_plain_placeholders

MUSE_IMAGE = "<|patch|>"
MUSE_VIDEO = "<|video|>"
MARKS = ("<|image|>", "<|image_start|>", "<|image_end|>", MUSE_VIDEO, "<|vid_start|>", "<|vid_end|>")
#: The most visual tokens of an image.
MOST = 49


def save_muse(folder: Path, window: int = 4096, **settings: Any) -> None:
    """Muse Glimmer. Two of three tower layers have windows of 2 x 2 visual tokens; one of three decoder layers has
    none, and does not rotate."""
    words = tokenizer(MUSE_IMAGE, *MARKS, "<|vid_frame_separator|>")
    vision = tower(0, pos_emb_height=4, pos_emb_width=4, layer_types=["window_attention"] * 2 + ["full_attention"])
    del vision["image_size"]
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    text = decoder(len(words), sliding_window=window, layer_types=kinds, layer_rope_theta=[1e4, 0, 1e4], **settings)
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "output_multiplier": 1.0}
    placeholders = words.convert_tokens_to_ids([MUSE_IMAGE, MUSE_VIDEO])
    config = transformers.MuseGlimmerConfig(
        vision_config=dict(vision),
        text_config=dict(text),
        image_token_id=placeholders[0],
        video_token_id=placeholders[1],
        out_hidden_size=256,
        projector_hidden_size=64,
        tie_word_embeddings=False,
    )
    processor = transformers.MuseGlimmerProcessor(
        image_processor=transformers.MuseGlimmerImageProcessor(max_image_tokens=MOST),
        video_processor=transformers.MuseGlimmerVideoProcessor(),
        tokenizer=words,
        chat_template=CHAT.replace("IMAGE", MUSE_IMAGE),
    )
    publish = partial(with_plain_placeholders, placeholders=placeholders)
    save(transformers.MuseGlimmerForConditionalGeneration(config), processor, folder, publish)
    rewrite(folder / "config.json", with_older_names)


def with_older_names(written: dict[str, Any]) -> dict[str, Any]:
    """Return a config that vLLM 0.32 can also read."""
    vision = {**written["vision_config"], "merge_kernel_size": 2, "output_dim": 256, "adapter_dim": 64}
    text = {**written["text_config"], "no_rope_layers": [1, 0, 1]}
    return {**written, "vision_config": vision, "text_config": text}


def resize_as_transformers() -> None:
    """Make vLLM 0.32's image processor resize images like transformers' processor, which vLLM 0.33 uses."""
    if find_spec("vllm.transformers_utils.processors.muse_glimmer") is None:
        return
    from torchvision.transforms.functional import pil_to_tensor  # before vLLM's import, torch would look for Triton
    from vllm.transformers_utils.processors import muse_glimmer

    class Images(muse_glimmer.MuseGlimmerImageProcessor):
        def __init__(self, **settings: Any) -> None:
            super().__init__(max_image_tokens=MOST, **settings)

        def preprocess_image(self, image: Any) -> Any:
            theirs = transformers.MuseGlimmerImageProcessor(max_image_tokens=MOST)
            pixels = pil_to_tensor(image.convert("RGB"))[None]
            resized = theirs.resize(pixels, PATCH, theirs.merge_size, MOST, theirs.resample)
            *_, n_tokens = self.compute_image_size(image.width, image.height)
            colors = theirs.image_mean, theirs.image_std
            return theirs.rescale_and_normalize(resized, True, theirs.rescale_factor, True, *colors)[0], n_tokens

    if muse_glimmer.MuseGlimmerImageProcessor.__name__ != Images.__name__:
        muse_glimmer.MuseGlimmerImageProcessor = Images


FAMILIES = (
    Family(
        "muse_glimmer",
        "TokenPruneMuseGlimmer",
        save_muse,
        MUSE_IMAGE,
        MUSE_VIDEO,
        far=Far(256, 8, (196, 196)),
        n_blocks=30,
        n_more=1,
    ),
)

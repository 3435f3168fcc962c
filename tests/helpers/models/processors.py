"""Processors for tiny models of `helpers.families` that mark and cut images differently from LLaVA's.

Each is saved in a folder with its model, which then loads like a published one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Regex, pre_tokenizers

from helpers.families import FAMILIES
from helpers.families.base import BOS, BREAK, END, EOS, IMAGE, PAD, PATCH, RECENT, START, VIDEO, VOCAB
from helpers.families.idefics import LATENTS
from helpers.families.llava import SIDE
from helpers.files.evals import word_tokenizer

CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %} MARK "
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
)
#: Pixels of a tile's side.
TILE = 24


def words(marks: dict[str, int], **named: str) -> Any:
    """Return a tokenizer with one token for each of `w0`, `w1`, ..., and for each mark at its ID. Processors know some
    by name."""
    known = {"<pad>": PAD, "<bos>": BOS, "<eos>": EOS, "<unk>": 2, **marks}
    others = (number for number in range(VOCAB) if number not in known.values())
    ids = known | {f"w{i}": number for i, number in enumerate(others)}
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "extra_special_tokens": named or list(marks)}
    return word_tokenizer(ids, pre_tokenizers.Split(Regex(r"\s+"), "removed"), **special)


def janus() -> Any:
    """Return a processor that pads images to squares and has no `image_token_id`."""
    marks = {"<image>": IMAGE, "<begin>": START, "<end>": END}
    named = dict(zip(("image_token", "boi_token", "eoi_token"), marks, strict=True))
    return transformers.JanusProcessor(
        image_processor=transformers.JanusImageProcessor(size={"height": SIDE, "width": SIDE}, min_size=PATCH),
        tokenizer=words(marks, **named),
        num_image_tokens=(SIDE // PATCH) ** 2,
        chat_template=CHAT.replace("MARK", "<image>"),
    )


def idefics2() -> Any:
    """Return the processor of a model that resamples images to visual tokens without a place."""
    return transformers.Idefics2Processor(
        image_processor=transformers.Idefics2ImageProcessor(size={"shortest_edge": 16, "longest_edge": TILE}),
        tokenizer=words({"<image>": IMAGE, "<fake_token_around_image>": START, "<end_of_utterance>": 80}),
        image_seq_len=LATENTS,
        chat_template=CHAT.replace("MARK", "<image>"),
    )


def molmo2() -> Any:
    """Return a processor that writes a different token for an image than for visual tokens, and makes overlapping
    crops."""
    marks = {"<|image|>": 84, "<|video|>": 85, "<im_patch>": IMAGE, "<im_col>": BREAK, "<im_start>": START}
    marks |= {"<im_end>": END, "<low_res_im_start>": 87, "<frame_start>": 88, "<frame_end>": 89, "<im_low>": 86}
    settings: Any = {"size": {"height": TILE, "width": TILE}, "patch_size": PATCH, "pooling_size": [2, 2]}
    return transformers.Molmo2Processor(
        image_processor=transformers.Molmo2ImageProcessor(max_crops=4, overlap_margins=[1, 1], **settings),
        video_processor=transformers.Molmo2VideoProcessor(**settings),
        tokenizer=words(marks),
        chat_template=CHAT.replace("MARK", "<|image|>"),
    )


def paligemma() -> Any:
    """Return a processor that gives prompt tokens a different type than answer tokens."""
    images: Any = transformers.SiglipImageProcessor(size={"height": TILE, "width": TILE})
    images.image_seq_length = (TILE // PATCH) ** 2
    return transformers.PaliGemmaProcessor(
        image_processor=images,
        tokenizer=words({"<image>": IMAGE}, image_token="<image>"),
        chat_template=CHAT.replace("MARK", "<image>"),
    )


def perception_lm() -> Any:
    """Return a processor that batches only images with the same number of tiles."""
    marks = {"<image>": IMAGE, "<video>": VIDEO}
    square = {"height": TILE, "width": TILE}
    return transformers.PerceptionLMProcessor(
        image_processor=transformers.PerceptionLMImageProcessor(tile_size=TILE, max_num_tiles=4, size=square),
        video_processor=transformers.PerceptionLMVideoProcessor(size=square),
        tokenizer=words(marks, image_token="<image>", video_token="<video>"),
        patch_size=PATCH,
        pooling_ratio=2,
        chat_template=CHAT.replace("MARK", "<image>"),
    )


PROCESSORS: dict[str, Callable[[], Any]] = {
    "idefics2": idefics2,
    "janus": janus,
    "molmo2": molmo2,
    "paligemma": paligemma,
    "perception-lm": perception_lm,
}
#: Processors that do not work with their models in older transformers.
RECENT_ONLY = frozenset({"janus", "perception-lm"})


def processor_of(name: str) -> Any:
    """Return a family's processor, or skip the test if it does not work."""
    if name in RECENT_ONLY and not RECENT:
        pytest.skip(f"{name}'s processor of an older transformers")
    return PROCESSORS[name]()


def saved_family(name: str, folder: Path) -> str:
    """Save a model of this family with its processor, and return the folder."""
    model, processor = FAMILIES[name].build(), processor_of(name)
    model.generation_config.eos_token_id = list(range(3, VOCAB, 3))  # otherwise answers would have the maximum length
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)

"""A tiny Qwen2-VL with a processor that takes videos."""

from pathlib import Path
from typing import Any

from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

from helpers.families import FAMILIES
from helpers.families.base import END, IMAGE, PAD, PATCH, START, VIDEO, VOCAB
from helpers.files.evals import word_tokenizer

PARTS = {"<|image_pad|>": IMAGE, "<|video_pad|>": VIDEO, "<|vision_start|>": START, "<|vision_end|>": END}
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %} {{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
)
#: Pixels of a frame at most: a frame with an aspect of three to two gets 6 x 4 visual tokens.
FEWEST, MOST = 32 * 48, 32 * 48
VIEWS: dict[str, Any] = {"patch_size": PATCH, "merge_size": 2, "temporal_patch_size": 2}


def qwen() -> Any:
    return FAMILIES["qwen2-vl"].build()


def qwen_processor() -> Qwen2VLProcessor:
    words = {"<pad>": PAD, "<unk>": 1} | PARTS | {f"{n:02d}": n + 2 for n in range(80)}
    words |= {f"w{n}": n for n in range(VOCAB) if n not in words.values()}
    size = {"shortest_edge": FEWEST, "longest_edge": MOST}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**VIEWS, size=size),
        tokenizer=word_tokenizer(words, additional_special_tokens=list(PARTS)),
        video_processor=Qwen2VLVideoProcessor(**VIEWS, size={"shortest_edge": FEWEST, "longest_edge": MOST * 8}),
        chat_template=CHAT_TEMPLATE,
    )


def saved_qwen(folder: Path) -> str:
    """Save a model with its processor, and return the folder."""
    qwen().save_pretrained(folder)
    qwen_processor().save_pretrained(folder)
    return str(folder)

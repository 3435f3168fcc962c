"""Prompts as mistral-common writes them."""

# pyright: reportMissingImports=false

from collections.abc import Iterable
from typing import Any

from helpers.served.marks import MISTRAL_IMAGE


def prompt(mistral: Any, text: str, images: Iterable[Any]) -> list[int]:
    """Return the IDs of a text and its images."""
    from mistral_common.protocol.instruct.chunk import ImageChunk

    left, ids = iter(images), []
    for word in text.split():
        if word == MISTRAL_IMAGE:
            ids += mistral.instruct_tokenizer.mm_encoder(ImageChunk(image=next(left))).tokens
        else:
            ids += mistral.instruct_tokenizer.tokenizer.encode(word, bos=False, eos=False)
    return ids

"""What tests need to know about a family that vLLM serves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from helpers.served.marks import COSMOS_VIDEO, IMAGE, LFM3_VIDEO, QWEN_VIDEO
from helpers.served.reference import Request

FOPRU = {"strategy": "fopru", "keep_ratio": 0.25}


@dataclass(frozen=True)
class Far:
    """A prompt whose position IDs run beyond the model's table although few of its tokens are left.

    table: the model's `max_position_embeddings`. size: the (width, height) of each of `n_images`.
    raises: the error of reading the table beyond its end; None if that gives NaN.
    """

    table: int
    n_images: int
    size: tuple[int, int]
    raises: str | None = None


M_ROPE_ENDS = "out of bounds for dimension 0"
#: vLLM's M-RoPE table is up to four times as long as the config says, and an image takes as many position IDs as its
#: longer side has visual tokens: more than 40 in these images.
FAR_MROPE = Far(64, 7, (1372, 28), raises=M_ROPE_ENDS)

#: The same for models with images of any size whose position IDs count tokens.
FAR_COUNTED = Far(64, 6, (196, 196))
FAR_ENDS = Far(256, 8, (196, 196), raises="index out of range")

#: vLLM's CPU kernel rotates the wrong values if only part of each head is rotated, and in LFM2.
OWN_ROTATION = {"compilation_config": {"custom_ops": ["all", "-rotary_embedding"]}}


@dataclass(frozen=True)
class Family:
    """A family: how to save a tiny model, and how images and pruned videos are written in a prompt.

    far: None for a model without a table of rotary embeddings, or whose prompts cannot go beyond it.
    visual_token: the token that an image repeats; None if it is the middle one of `image`.
    n_blocks: blocks of a KV cache that a few requests together exceed.
    n_step: the maximum tokens per step; if it is small, steps end within images.
    caches: whether vLLM caches prefixes of prompts.
    n_more: how many more tokens than in other families precede an image's visual tokens.
    options: engine options that the family needs.
    settings: settings to prune with.
    """

    name: str
    architecture: str
    save: Callable[..., None]
    image: str = IMAGE
    video: str | None = None
    far: Far | None = Far(256, 8, (140, 112))
    visual_token: str | None = None
    n_blocks: int = 10
    n_step: int = 16
    caches: bool = True
    n_more: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=lambda: FOPRU)

    @property
    def mixes(self) -> bool:
        """Whether transformers accepts images and videos in one prompt."""
        return self.video in (QWEN_VIDEO, COSMOS_VIDEO, LFM3_VIDEO)

    def requests(self) -> list[Request]:
        """Return prompts with one and several images, with their own keep ratios, and without images."""
        a, b, c = (1, 140, 112), (2, 200, 90), (3, 112, 224)
        i = self.image
        return [
            Request(f"w1 w2 {i} w3 w4", (a,)),
            Request(f"w1 w2 {i} w3 w4", (b,)),
            Request(f"{words(40)} {i} w8", (c,)),
            Request(f"w1 w2 {i} w3 w4", (a,), keep_ratio=0.5),
            Request(f"w1 w2 {i} w3 w4", (b,), keep_ratio=1.0),
            Request("w9 w10 w11"),
            Request(f"{i} w5 {i} w6 w7", (a, c)),
            Request(f"{i} w5 {i} w6 w7", (c, a)),
            Request(f"{i} w5 {i} w6 {i} w7", (b, b, a)),
        ]

    def visual(self, output: Any, tokenizer: Any) -> range:
        """Return where the first image's visual tokens are in the prompt of vLLM's output."""
        marks = self.image.split()
        name = self.visual_token or marks[len(marks) // 2]
        token, ids = tokenizer.convert_tokens_to_ids(name), output.prompt_token_ids
        start = ids.index(token)
        n = next((n for n, one in enumerate(ids[start:]) if one != token), len(ids) - start)
        return range(start, start + n)


def words(n: int, first: int = 0) -> str:
    """Return a text of n tokens."""
    return " ".join(f"w{(first + i) % 70}" for i in range(n))

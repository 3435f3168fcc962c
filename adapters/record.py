"""What the code outside of `adapters` knows of a class of models, besides its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from tokenprune.adapters import families
from tokenprune.adapters.tested import read_tested


@dataclass(frozen=True)
class Record:
    """What a family says of a transformers class where it registers its adapter.

    prompt_style: how the model is asked for boxes, and writes them: a name in `evals/models/box_formats.py`.
    names: patterns at the start of the names of checkpoints in transformers' format that do not contain the type -> the
        type of their vision tower; None for the one that all have.
    other_names: the same for names that only look as if they belonged to it.
    part_of: the class of which the model is a part, with the name of the part: "OmniForConditionalGeneration.thinker".
    processor: the class of its processor, if one of these holds.
    resizable: whether that resizes every image to one size, and each patch is a visual token.
    types_answers: whether tokens have types, and it gives those of an answer type 1, which only see earlier tokens.
    views: beginnings of names of image processors -> how they may show an image: "padded" to a square, without all but
        its middle ("cropped"), or "resized", with boxes that count pixels of the resized image.
    first_stage: the first decoder layer of published checkpoints at which tokens can be dropped, if features of visual
        tokens enter before the layers up to it.
    makes_cache: whether the model makes a KV cache itself.
    has_ideal: whether its language model needs no more of visual tokens than what the encoding function returns, so
        that `bench` can give it fewer of them.
    text_inputs: returns what a call with `inputs_embeds` needs besides, from the language model and token IDs, with 0
        for visual tokens.
    frames: the adapter for prompts whose images are the frames of one video, as "llava_frames:LlavaFramesAdapter".
    """

    prompt_style: str | None = None
    names: Mapping[str, str | None] = field(default_factory=dict)
    other_names: tuple[str, ...] = ()
    part_of: str | None = None
    processor: str | None = None
    resizable: bool = False
    types_answers: bool = False
    views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    first_stage: int = 1
    makes_cache: bool = True
    has_ideal: bool = True
    text_inputs: Callable[[Any, Any], dict[str, Any]] = lambda text, ids: {}
    frames: str | None = None


#: By class; filled by `register_adapter`.
RECORDS: dict[str, Record] = {}


@cache
def records() -> dict[str, Record]:
    """The records of all families, by `model_type`. Imports them all."""
    for module in iter_modules(families.__path__, f"{families.__name__}."):
        import_module(module.name)
    return {row.model_type: RECORDS[row.class_name] for row in read_tested().values() if row.class_name in RECORDS}


def record_of(model_type: str) -> Record:
    """The record of a type; that of a model like any other if no family says anything of it."""
    return records().get(model_type, Record())

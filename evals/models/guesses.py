"""The type of a published checkpoint, guessed from its name: `tokenprune models` does not read configs from the Hub."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from tokenprune.evals.models.checkpoint import Checkpoint

#: The name of a checkpoint on Hugging Face.
CHECKPOINT = re.compile(r"[\w-]+/[\w.-]+")
#: A parameter count, which must not be read as a version: Gemma 3 4B is not a Gemma 4.
SIZE = re.compile(r"(?<![a-z0-9.])[aex]?\d+(\.\d+)?[bm](?![a-z])", re.IGNORECASE)


@cache
def patterns() -> dict[str, Checkpoint | None]:
    """Patterns at the start of names -> what such checkpoints are; None if the name only looks like that of a type. The
    first match counts: of those in transformers' format, then of those that vLLM serves."""
    from tokenprune.adapters.record import records
    from tokenprune.serving.vllm.architectures import ARCHITECTURES
    from tokenprune.serving.vllm.architectures.checkpoints import TWO_FORMATS

    every = ARCHITECTURES.values()
    by_pattern: dict[str, Checkpoint | None] = {}
    for kind, record in records().items():
        named = (TWO_FORMATS[kind].converted_name,) if kind in TWO_FORMATS else ()
        by_pattern |= {pattern: Checkpoint(kind, tower, named) for pattern, tower in record.names.items()}
    by_pattern |= {pattern: None for record in (*records().values(), *every) for pattern in record.other_names}
    for record in every:
        named = (record.replaces,) if record.must_be_named or record.conversion else ()
        by_pattern |= dict.fromkeys(record.names, Checkpoint(record.model_type, architectures=named))
    return by_pattern


def guess(name: str, types: Collection[str]) -> Checkpoint | None:
    """The checkpoint that a Hugging Face name stands for, given all types; None if the name does not say."""
    if not CHECKPOINT.fullmatch(name):
        return None
    for pattern, checkpoint in patterns().items():
        if re.match(pattern, name, re.IGNORECASE):
            return checkpoint
    model_type = _type_in(name.rpartition("/")[2], types)
    return None if model_type is None else Checkpoint(model_type)


def part_of(wanted: str, names: Collection[str]) -> str | None:
    """The longest of `names` that is contained in `wanted`."""
    return max(sorted(name for name in names if plain(name) in plain(wanted)), key=len, default=None)


def plain(name: str) -> str:
    """A name without case and punctuation: that of Qwen3-VL is in that of qwen3_vl."""
    return "".join(filter(str.isalnum, name.lower()))


def _type_in(name: str, types: Collection[str]) -> str | None:
    """The longest type contained in a name; else the shortest that begins with two or more of its first words:
    Qwen2.5-Omni-7B is of type qwen2_5_omni_thinker."""
    name = SIZE.sub("", name)
    if (within := part_of(name, types)) is not None:
        return within
    words = [word for word in name.split("-") if word]
    beginnings = (plain("-".join(words[:n])) for n in range(len(words), 1, -1))
    fitting = ([kind for kind in sorted(types) if beginning in _beginnings(kind)] for beginning in beginnings)
    return next((min(some, key=len) for some in fitting if some), None)


def _beginnings(model_type: str) -> list[str]:
    """A type's first word, its first two, and so on, but none cut before a number, which may be part of a version."""
    words = model_type.split("_")
    return ["".join(words[:n]) for n in range(1, len(words)) if not words[n][0].isdigit()]

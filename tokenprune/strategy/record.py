"""What a built-in strategy's class says about it, for pages, measurements and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the repository's pages, measurements and tests say about a strategy, written once.

    keeps: which tokens it keeps, in the catalogue's words.
    published: the paper's or its code's value of each setting that is not None by default, of `reuse`, and of
        `keep_ratio` if that is not a quarter. source: where they are from.
    stages: the decoder layers at which its stages start by default, in language models of 28, 32 and 36 layers.
    waits: how often a prefill of one image makes the CPU wait for its device, and of each further image of the batch,
        in addition to the model's own waits; a single number is an upper bound for each image. None is not counted.
    measured: the settings, as in `--strategy`, with which the accuracy tables have it. unmeasured: why they do not.
    best_with_cls: whether it reads the attention of all patches only where the vision tower has no CLS token.
    claimed: TextVQA in per cent of LLaVA-1.5-7B with 64 tokens, as published; with a star, by others than its authors.
    """

    keeps: str
    source: str = ""
    published: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Sequence[int], ...] = ()
    waits: tuple[int, int] | int | None = None
    measured: tuple[str, ...] = ("",)
    unmeasured: str = ""
    best_with_cls: bool = False
    claimed: str = ""

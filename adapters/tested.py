"""What `make matrix` found for every class: the contract that its tests check, and what it offers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("tested.json")


@dataclass(frozen=True)
class Tested:
    """A class of transformers, with one kind of tower and language model, as the contract matrix ran it.

    class_name, model_type: the names that transformers gives it.
    adapter: its adapter class.
    contract: what pruning is exactly equal to; one of `tokenprune.sequence.masks.Contract`.
    statistics: the statistics that strategies may read, by their names in `tokenprune.tokens.STATISTICS`.
    stages: whether strategies may prune inside the language model.
    modalities: the kinds of visual input that it takes: "image", "video".
    error: the largest difference from the oracle's logits in any test.
    cells: the outcome of each test: passed, cannot (transformers itself does not support it) or failed.
    """

    class_name: str
    model_type: str
    adapter: str
    contract: str
    statistics: list[str]
    stages: bool
    modalities: list[str]
    error: float
    cells: dict[str, str]


@cache
def read_tested() -> dict[str, Tested]:
    """Return what was tested, by the name of the test family."""
    return {name: Tested(**found) for name, found in json.loads(FILE.read_text(encoding="utf-8")).items()}

"""What `make matrix` found for every class: the contract that its tests check, and what it offers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tokenprune.adapters.conventions import unwrap_part

if TYPE_CHECKING:
    from tokenprune.adapters.base import ModelAdapter

FILE = Path(__file__).with_name("tested.json")


@dataclass(frozen=True)
class Tested:
    """A class of transformers, with one kind of tower and language model, as the contract matrix ran it.

    class_name, model_type: the names that transformers gives it.
    adapter: its adapter class.
    contract: what pruning is exactly equal to; one of `tokenprune.sequence.masks.Contract`.
    statistics: the statistics that strategies may read, by their names in `tokenprune.tokens.STATISTICS`.
    classes: those of the language model and, if there is one, of the vision tower.
    layers: the kinds of its decoder layers.
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
    classes: list[str]
    layers: list[str]
    stages: bool
    modalities: list[str]
    error: float
    cells: dict[str, str]


@cache
def read_tested() -> dict[str, Tested]:
    """Return what was tested, by the name of the test family."""
    return {name: Tested(**row) for name, row in json.loads(FILE.read_text(encoding="utf-8")).items()}


def combination_of(adapter: ModelAdapter) -> tuple[str, str, list[str], list[str]]:
    """Return the class of a model and of its adapter, and `classes` and `layers` of `Tested`. Parts from outside
    transformers have their module in their names."""
    tower = getattr(adapter, "vision_tower", None)
    parts = [type(unwrap_part(part)) for part in (adapter.language_model, *([] if tower is None else [tower]))]
    names = [part.__name__ if part.__module__.startswith("transformers.") else str(part) for part in parts]
    return type(adapter.model).__name__, type(adapter).__name__, names, sorted(set(adapter.decoder.layers.kinds))


def is_tested(adapter: ModelAdapter) -> bool:
    """Return whether the contract matrix ran a model's combination of classes. For models that need a later version of
    transformers than the stored matrix, the parts are not known, and any counts."""
    name, kind, classes, layers = combination_of(adapter)
    same = (row for row in read_tested().values() if (row.class_name, row.adapter) == (name, kind))
    return any(row.classes in ([], classes) and row.layers in ([], layers) for row in same)

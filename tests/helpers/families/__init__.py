"""Tiny families with random weights: of the contract matrix, and with matrices of their own.

`configs/` has their configurations as in published checkpoints; the classes say how prompts are written.
"""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TypeVar

import pytest
import transformers
from huggingface_hub.errors import StrictDataclassError

from tokenprune.adapters import ADAPTERS

from .base import Family
from .denoising.base import DenoisingFamily

#: From this version of transformers on, all families exist but those in `SINCE`.
COMPLETE = (5, 24)
#: The first version of transformers that has these families.
SINCE = {"llava-onevision1.5": (5, 25), "ovis2.5": (5, 25), "pi05": (5, 25)}
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
#: Name -> module and class.
CLASSES: dict[str, str] = json.loads(Path(__file__).with_name("classes.json").read_text())
T = TypeVar("T", bound=Family)


class Families(dict[str, T]):
    """The families that this transformers has, by name. Looking up one of the others skips the test."""

    def __init__(self, classes: Mapping[str, str]) -> None:
        super().__init__()
        self.classes = classes
        for name, where in classes.items():
            module, _, kind = where.partition(":")
            expected = SINCE.get(name, COMPLETE) <= VERSION
            try:
                family = getattr(import_module(f".{module}", __name__), kind)(name)
            except ImportError:  # older transformers lacks what the module imports
                if expected:
                    raise
                continue
            if expected or _is_present(family):
                self[name] = family

    def __missing__(self, name: str) -> T:
        if name not in self.classes:
            raise KeyError(name)
        pytest.skip(f"transformers {transformers.__version__} lacks {name}")


def _is_present(family: Family) -> bool:
    """Return whether this transformers has the model, can make its configuration, and has it as the adapter expects."""
    if not hasattr(transformers, family.class_name):
        return False
    try:
        family.config()
    except (StrictDataclassError, ValueError):  # it lacks the type; 5.4 takes True for no int, but declares some as one
        return False
    adapter = ADAPTERS.get(family.class_name)
    return adapter is None or adapter.since <= VERSION


FAMILIES: Families[Family] = Families(CLASSES)
#: The families that denoise: their tests compare every step with that of the unpatched model.
DENOISING: Families[DenoisingFamily] = Families(
    {
        "diffusion-gemma": "denoising.diffusion_gemma:DiffusionGemma",
        "pi0": "denoising.pi0:PI0",
        "pi05": "denoising.pi0:PI05",
    }
)
#: Families that can be pruned only with compact position IDs and without padding, tested in test_compact_only.py.
COMPACT_ONLY: Families[Family] = Families({"minimax-m3": "packed:MiniMaxM3"})


def present(*names: str) -> list[str]:
    """Return those of the families that this transformers has. Raises KeyError for an unknown name."""
    return [name for name in names if CLASSES[name] and name in FAMILIES]


__all__ = ["COMPACT_ONLY", "DENOISING", "FAMILIES", "Family", "present"]

"""The families that denoise: their tests compare every step with that of the unpatched model."""

from importlib import import_module

import pytest
import transformers

from .base import DenoisingFamily

#: Name -> the class that this transformers must have, and the family's module and class.
CLASSES = {
    "diffusion-gemma": ("DiffusionGemmaForBlockDiffusion", "diffusion_gemma:DiffusionGemma"),
    "pi0": ("PI0ForConditionalGeneration", "pi0:PI0"),
    "pi05": ("PI05ForConditionalGeneration", "pi05:PI05"),
}


class DenoisingFamilies(dict[str, DenoisingFamily]):
    """The families that this transformers has, by name. Looking up one of the others skips the test."""

    def __missing__(self, name: str) -> DenoisingFamily:
        if name not in CLASSES:
            raise KeyError(name)
        pytest.skip(f"transformers {transformers.__version__} lacks {name}")


def _families() -> DenoisingFamilies:
    found = DenoisingFamilies()
    for name, (class_name, where) in CLASSES.items():
        if hasattr(transformers, class_name):
            module, _, kind = where.partition(":")
            found[name] = getattr(import_module(f".{module}", __name__), kind)(name)
    return found


DENOISING = _families()

__all__ = ["DENOISING", "DenoisingFamily"]

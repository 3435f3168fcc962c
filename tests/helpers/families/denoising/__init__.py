"""The families that denoise: their tests compare every step with that of the unpatched model."""

from __future__ import annotations

import transformers

from .base import DenoisingFamily


def _families() -> dict[str, DenoisingFamily]:
    found: dict[str, DenoisingFamily] = {}
    if hasattr(transformers, "DiffusionGemmaForBlockDiffusion"):
        from .diffusion_gemma import DiffusionGemma

        found["diffusion-gemma"] = DiffusionGemma("diffusion-gemma")
    if hasattr(transformers, "PI0ForConditionalGeneration"):
        from .pi0 import PI0

        found["pi0"] = PI0("pi0")
    return found


DENOISING: dict[str, DenoisingFamily] = _families()

__all__ = ["DENOISING", "DenoisingFamily"]

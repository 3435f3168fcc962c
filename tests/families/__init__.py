"""The model families of the contract matrix, by the names that its test cases have."""

from __future__ import annotations

from .base import Family
from .gemma import Gemma3, PaliGemma
from .internvl import InternVL
from .llava import TOWERS, Llava
from .llava_next import LlavaNext
from .qwen_vl import Qwen2_5_VL

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(Llava(f"llava-{kind}", kind) for kind in TOWERS),
        LlavaNext("llava-next"),
        Qwen2_5_VL("qwen2.5-vl"),
        InternVL("internvl"),
        Gemma3("gemma3", window=512),
        Gemma3("gemma3-window", window=12),
        PaliGemma("paligemma"),
    )
}

__all__ = ["FAMILIES", "Family"]

"""Tiny families with random weights: of the contract matrix, and with matrices of their own.

`configs/` has their configurations as in published checkpoints; the classes say how prompts are written.
"""

from collections.abc import Mapping
from importlib import import_module
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
CLASSES = {
    "llava-clip": "llava:Llava",
    "llava-siglip": "llava:Llava",
    "llava-dinov2": "llava:Llava",
    "llava-pixtral": "mistral3:LlavaPixtral",
    "vip-llava": "llava:VipLlava",
    "llava-next": "llava_next:LlavaNext",
    "llava-onevision": "llava_next:LlavaOnevision",
    "llava-onevision1.5": "packed:FramesAlone",
    "llava-next-video": "llava_next:LlavaNextVideo",
    "video-llava": "llava:VideoLlava",
    "qwen2-vl": "qwen_vl:QwenVL",
    "qwen2.5-vl": "qwen_vl:QwenVL",
    "qwen3-vl": "qwen_vl:Qwen3VL",
    "qwen3-vl-moe": "qwen_vl:MRopeSteps",
    "cosmos3-omni": "qwen_vl:MRopeSteps",
    "qwen3.5": "qwen_vl:Qwen3_5",
    "qwen3.5-moe": "qwen_vl:Qwen3_5",
    "glm4v": "glm:Glm4v",
    "glm4.6v": "glm:Glm4v",
    "glmga": "glm:Glm4v",
    "glm4v-moe": "glm:Glm4v",
    "glm-ocr": "glm:Glm4v",
    "glm5-next": "glm:Glm5Next",
    "paddleocr-vl": "packed:PaddleOCRVL",
    "qwen2.5-omni": "omni:Qwen2_5Omni",
    "qwen3-omni": "omni:Qwen3Omni",
    "hunyuan-vl": "packed:HunyuanVL",
    "video-llama-3": "packed:VideoLlama3",
    "ernie4.5-vl": "packed:Ernie4_5VL",
    "exaone4.5": "packed:QwenTower",
    "hyperclovax": "packed:QwenTower",
    "cosmos3-edge": "packed:Cosmos3Edge",
    "qwen4-exp": "qwen_vl:Qwen3_5",
    "internvl": "tiles:InternVL",
    "idefics3": "idefics:Idefics3",
    "smolvlm": "idefics:Idefics3",
    "gemma3": "gemma:Gemma3",
    "gemma3-window": "gemma:Gemma3",
    "paligemma": "gemma:PaliGemma",
    "gemma3n": "gemma:Gemma3n",
    "gemma4": "gemma4:Gemma4",
    "gemma4-moe": "gemma4:Gemma4MoE",
    "gemma4-unified": "gemma4:Gemma4Unified",
    "nemotron-omni": "others:NemotronOmni",
    "molmo2": "molmo2:Molmo2",
    "dots3-note": "indexed:Dots3Note",
    "hy-v4-vl": "indexed:HYV4VL",
    "mistral-large4": "indexed:MistralLarge4",
    "muse-spark": "packed:MuseGlimmer",
    "muse-glimmer": "packed:MuseGlimmer",
    "cohere-compass": "qwen_vl:MRopeSteps",
    "aya-vision": "tiles:AyaVision",
    "cohere2-vision": "tiles:Cohere2Vision",
    "lfm3-vl": "packed:Lfm3VL",
    "lfm2-vl": "others:Lfm2VL",
    "llama4": "tiles:Llama4",
    "minicpm-ocr": "minicpm:MiniCPMOcr",
    "minicpmv4_7": "minicpm:MiniCPMV47",
    "minicpmv4_6": "minicpm:MiniCPMV46",
    "kimi-k25": "packed:KimiK25",
    "mistral3": "mistral3:Mistral3",
    "deepseek-vl": "llava:DeepseekVL",
    "deepseek-vl-hybrid": "llava:DeepseekVLHybrid",
    "janus": "llava:Janus",
    "lighton-ocr": "mistral3:LightOnOcr",
    "qianfan-ocr": "tiles:QianfanOcr",
    "got-ocr2": "llava:GotOcr2",
    "ovis2": "tiles:Ovis2",
    "ovis2.5": "packed:Ovis25",
    "aria": "llava:Aria",
    "fast-vlm": "llava:FastVlm",
    "perception-lm": "llava:PerceptionLM",
    "granite4-vision": "llava_next:Granite4Vision",
    "granite-docling": "idefics:GraniteDocling",
    "idefics2": "idefics:Idefics2",
    "deepseek-ocr2": "crops:DeepseekOcr2",
    "step3p7": "crops:Step3p7",
    "unlimited-ocr": "crops:UnlimitedOcr",
    "apertus1p5": "mistral3:Apertus1p5",
    "emu3": "mistral3:Emu3",
    "fuyu": "llava:Fuyu",
    "inkling": "others:Inkling",
    "inkling2": "others:Inkling2",
    "inkling2-loop": "others:Inkling2",
}
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

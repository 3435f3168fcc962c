"""The model families of the contract matrix, by their names in test cases."""

from importlib import import_module
from typing import Any

import pytest
import transformers
from huggingface_hub.errors import StrictDataclassError

from tokenprune.adapters import ADAPTERS

from .base import Family

#: From this version of transformers on, all families exist but those in `SINCE`.
COMPLETE = (5, 24)
#: The first version of transformers that has these families.
SINCE = {"llava-onevision1.5": (5, 25), "ovis2.5": (5, 25)}
VERSION = tuple(int(part) for part in transformers.__version__.split(".")[:2])
#: Name -> module and class, and the settings of the class.
CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "llava-clip": ("llava:Llava", {"kind": "clip"}),
    "llava-siglip": ("llava:Llava", {"kind": "siglip"}),
    "llava-dinov2": ("llava:Llava", {"kind": "dinov2"}),
    "llava-pixtral": ("mistral3:LlavaPixtral", {}),
    "vip-llava": ("llava:VipLlava", {}),
    "llava-next": ("llava_next:LlavaNext", {}),
    "llava-onevision": ("llava_next:LlavaOnevision", {}),
    "llava-onevision1.5": ("packed.frames_alone:LlavaOnevision15", {}),
    "llava-next-video": ("llava_next:LlavaNextVideo", {}),
    "video-llava": ("llava:VideoLlava", {}),
    "qwen2-vl": ("qwen_vl:Qwen2VL", {}),
    "qwen2.5-vl": ("qwen_vl:Qwen2_5_VL", {}),
    "qwen3-vl": ("qwen_vl:Qwen3VL", {}),
    "qwen3-vl-moe": ("packed.qwen3_vl_moe:Qwen3VLMoe", {}),
    "cosmos3-omni": ("packed.qwen3_vl_moe:Cosmos3Omni", {}),
    "qwen3.5": ("packed.qwen3_5:Qwen3_5", {}),
    "qwen3.5-moe": ("packed.qwen3_5:Qwen3_5Moe", {}),
    "glm4v": ("packed.glm:Glm4v", {}),
    "glm4.6v": ("packed.glm:Glm46V", {}),
    "glmga": ("packed.glm:Glmga", {}),
    "glm4v-moe": ("packed.glm:GlmMoe", {}),
    "glm-ocr": ("packed.glm:GlmOcr", {}),
    "glm5-next": ("packed.glm:Glm5Next", {}),
    "paddleocr-vl": ("packed.paddle_ocr:PaddleOCRVL", {}),
    "qwen2.5-omni": ("packed.omni:Qwen2_5Omni", {}),
    "qwen3-omni": ("packed.omni:Qwen3Omni", {}),
    "hunyuan-vl": ("packed.hunyuan:HunyuanVL", {}),
    "video-llama-3": ("packed.video_llama_3:VideoLlama3", {}),
    "ernie4.5-vl": ("packed.ernie:Ernie4_5VL", {}),
    "exaone4.5": ("packed.qwen_towers:Exaone4_5", {}),
    "hyperclovax": ("packed.qwen_towers:HyperClovaX", {}),
    "cosmos3-edge": ("packed.cosmos3_edge:Cosmos3Edge", {}),
    "qwen4-exp": ("packed.qwen4_exp:Qwen4Exp", {}),
    "internvl": ("internvl:InternVL", {}),
    "idefics3": ("idefics:Idefics3", {}),
    "smolvlm": ("idefics:SmolVLM", {}),
    "gemma3": ("gemma:Gemma3", {"window": 512}),
    "gemma3-window": ("gemma:Gemma3", {"window": 12}),
    "paligemma": ("gemma:PaliGemma", {}),
    "gemma3n": ("gemma3n:Gemma3n", {}),
    "gemma4": ("gemma4:Gemma4", {}),
    "gemma4-moe": ("gemma4:Gemma4MoE", {}),
    "gemma4-unified": ("gemma4:Gemma4Unified", {}),
    "nemotron-omni": ("states.nemotron:NemotronOmni", {}),
    "molmo2": ("molmo2:Molmo2", {}),
    "dots3-note": ("sparse.indexed:Dots3Note", {}),
    "hy-v4-vl": ("sparse.indexed:HYV4VL", {}),
    "mistral-large4": ("sparse.indexed:MistralLarge4", {}),
    "muse-spark": ("packed.muse:MuseSpark", {}),
    "muse-glimmer": ("packed.muse:MuseGlimmer", {}),
    "cohere-compass": ("packed.compass:CohereCompass", {}),
    "aya-vision": ("cohere:AyaVision", {}),
    "cohere2-vision": ("cohere:Cohere2Vision", {}),
    "lfm3-vl": ("states.lfm:Lfm3VL", {}),
    "lfm2-vl": ("states.lfm:Lfm2VL", {}),
    "llama4": ("llama4:Llama4", {}),
    "minicpm-ocr": ("states.minicpm:MiniCPMOcr", {}),
    "minicpmv4_7": ("states.minicpm:MiniCPMV47", {}),
    "minicpmv4_6": ("states.minicpm:MiniCPMV46", {}),
    "kimi-k25": ("kimi:KimiK25", {}),
    "mistral3": ("mistral3:Mistral3", {}),
    "deepseek-vl": ("tiled.deepseek_vl:DeepseekVL", {}),
    "deepseek-vl-hybrid": ("tiled.deepseek_vl:DeepseekVLHybrid", {}),
    "janus": ("tiled.deepseek_vl:Janus", {}),
    "lighton-ocr": ("tiled.ocr:LightOnOcr", {}),
    "qianfan-ocr": ("tiled.ocr:QianfanOcr", {}),
    "got-ocr2": ("tiled.ocr:GotOcr2", {}),
    "ovis2": ("tiled.others:Ovis2", {}),
    "ovis2.5": ("packed.frames_alone:Ovis25", {}),
    "aria": ("tiled.others:Aria", {}),
    "fast-vlm": ("tiled.others:FastVlm", {}),
    "perception-lm": ("tiled.others:PerceptionLM", {}),
    "granite4-vision": ("tiled.granite:Granite4Vision", {}),
    "granite-docling": ("tiled.granite:GraniteDocling", {}),
    "idefics2": ("tiled.idefics2:Idefics2", {}),
    "deepseek-ocr2": ("tiled.ocr:DeepseekOcr2", {}),
    "step3p7": ("tiled.crops:Step3p7", {}),
    "unlimited-ocr": ("tiled.crops:UnlimitedOcr", {}),
    "apertus1p5": ("tiled.codes:Apertus1p5", {}),
    "emu3": ("tiled.codes:Emu3", {}),
    "fuyu": ("tiled.codes:Fuyu", {}),
    "inkling": ("tiled.inkling:Inkling", {}),
    "inkling2": ("tiled.inkling:Inkling2", {}),
    "inkling2-loop": ("tiled.inkling:Inkling2Loop", {}),
}


class Families(dict[str, Family]):
    """The families that this transformers has, by name. Looking up one of the others skips the test."""

    def __missing__(self, name: str) -> Family:
        if name not in CLASSES:
            raise KeyError(name)
        pytest.skip(f"transformers {transformers.__version__} lacks {name}")


def _families() -> Families:
    found = Families()
    for name, (where, settings) in CLASSES.items():
        module, _, kind = where.partition(":")
        expected = SINCE.get(name, COMPLETE) <= VERSION
        try:
            family = getattr(import_module(f".{module}", __name__), kind)(name, **settings)
        except ImportError:  # older transformers lacks the class
            if expected:
                raise
            continue
        if expected or _is_present(family):
            found[name] = family
    return found


def _is_present(family: Family) -> bool:
    """Return whether this transformers has the model, can make its configuration, and has it as the adapter expects."""
    classes = family.class_name, getattr(family, "config_name", family.class_name)
    if not all(hasattr(transformers, one) for one in classes):
        return False
    try:
        family.config()
    except StrictDataclassError:  # 5.4 takes True for no int, and declares some switches as one
        return False
    adapter = ADAPTERS.get(family.class_name)
    return adapter is None or adapter.since <= VERSION


FAMILIES = _families()


def present(*names: str) -> list[str]:
    """Return those of the families that this transformers has. Raises KeyError for an unknown name."""
    return [name for name in names if CLASSES[name] and name in FAMILIES]


__all__ = ["FAMILIES", "Family", "present"]

"""Which of our architectures serves which checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES, GENERIC


@dataclass(frozen=True)
class Formats:
    """Two formats of checkpoints of one type: their authors', which only vLLM reads, and transformers', which vLLM does
    not read.

    authors, transformers: the architecture that config.json names.
    published, conversion: a checkpoint in each format.
    """

    authors: str
    published: str
    transformers: str
    conversion: str


#: Towers that vLLM implements, in families that may have others too.
NATIVE_TOWERS = ("clip_vision_model", "siglip_vision_model")
#: Types of checkpoints in a format that is not served, and how to get the one that is.
OTHER_FORMATS = {
    "deepseek_ocr2": "is read by transformers only: vLLM takes DeepSeek-OCR 2 in its authors' format, with the type "
    "'deepseek_vl_v2' in config.json. Write the name of such a checkpoint, such as deepseek-ai/DeepSeek-OCR-2.",
    "ernie4_5_vl_moe": "is read by transformers only: vLLM takes ERNIE 4.5 VL in its authors' format, with the type "
    "'ernie4_5_moe_vl' in config.json. Write the name of such a checkpoint, as baidu/ERNIE-4.5-VL-28B-A3B-PT is one.",
    "hyperclovax_vision_v2": "is read by transformers only: vLLM takes HyperCLOVA X as it is published, with the type "
    "'vlm'. Write its published name, naver-hyperclovax/HyperCLOVAX-SEED-Think-32B.",
    "lighton_ocr": "is read by transformers only: vLLM takes LightOn OCR as it is published, with the type 'mistral3'. "
    "Write its published name, such as lightonai/LightOnOCR-2-1B.",
    "qwen2_5_omni_thinker": "is a thinker alone: vLLM takes the whole model. Write its name, such as "
    "Qwen/Qwen2.5-Omni-7B.",
    "qwen3_omni_moe_thinker": "is a thinker alone: vLLM takes the whole model. Write its name, such as "
    "Qwen/Qwen3-Omni-30B-A3B-Instruct.",
    "unlimited_ocr": "is read by transformers only: vLLM takes Unlimited-OCR in its authors' format, with the type "
    "'unlimited-ocr' in config.json. Write the name of such a checkpoint, as baidu/Unlimited-OCR is one.",
}
#: Types of checkpoints in their authors' format, which vLLM reads, and of their conversions to transformers' format.
CONVERTED = {
    "ernie4_5_moe_vl": "ernie4_5_vl_moe",
    "internvl_chat": "internvl",
    "unlimited-ocr": "unlimited_ocr",
    "vlm": "hyperclovax_vision_v2",
}
#: Types that only vLLM reads, and a transformers type with the same kind of vision tower.
ONLY_VLLM = {
    "Keye": "paddleocr_vl",
    "KeyeVL1_5": "paddleocr_vl",
    "NemotronH_Nano_Omni_Reasoning_V3": "nemotron_h_omni",
    "NemotronH_Nano_VL_V2": "nemotron_h_omni",
    "NemotronH_Super_Omni_Reasoning_V3": "nemotron_h_omni",
    "bailing_moe_v3_vl": "qwen3_5",
    "deepseek_vl_v2": "unlimited_ocr",
    "dots_ocr": "exaone4_5",
    "intern_s2_preview": "qwen3_5_moe",
    "interns1": "internvl",
    "interns2_mobius": "qwen3_5_moe",
    "isaac": "paddleocr_vl",
    "kimi_k3": "kimi_k25",
    "kimi_k31": "kimi_k25",
    "kimi_vl": "kimi_k25",
    "llava_onevision2": "qwen2_vl",
    "minicpmo": "idefics2",
    "minicpmv": "idefics2",
    "opencua": "qwen2_5_vl",
    "ovis2_6": "ovis2_5",
    "ovis2_6_moe": "ovis2_5",
    "pixtral": "mistral3",
    "step_robotics": "step3p7",
}
#: Types of checkpoints in two formats, told apart by the architecture that config.json names.
TWO_FORMATS = {
    "ovis2_5": Formats("Ovis2_5", "AIDC-AI/Ovis2.5-9B", "Ovis2_5ForConditionalGeneration", "ovis-community/Ovis2.5-2B")
}
#: Types for which transformers writes different language model settings than vLLM reads: a setting that only
#: transformers writes, and a published checkpoint.
AS_PUBLISHED = {"minimax_m3_vl": ("layer_types", "MiniMaxAI/MiniMax-M3")}
PATCH = "Patch it in transformers instead: tokenprune.patch(model, strategy)."


def architecture_of(config: Mapping[str, Any]) -> str:
    """Return the name of the architecture that serves a checkpoint, given its config.json. Raises UnsupportedError for
    a model that none serves, even if it shares its type with one that is served."""
    model_type, names = config.get("model_type"), config.get("architectures") or ()
    if model_type is None:
        raise UnsupportedError(
            'config.json has no "model_type", so it is not a model in the format of Hugging Face. Name one that is.'
        )
    formats = TWO_FORMATS.get(model_type)
    if formats is not None and formats.transformers in names:
        raise _not_as_published(model_type, formats.published)
    _check_names(model_type, [name for name in names if name not in ARCHITECTURES])
    tower = (config.get("vision_config") or {}).get("model_type", NATIVE_TOWERS[0])
    for architecture in ARCHITECTURES.values():
        if architecture.must_be_named and not {architecture.replaces, architecture.name} & set(names):
            continue
        if architecture.model_type == model_type:
            if model_type == "llava" and tower not in NATIVE_TOWERS:
                return GENERIC
            return architecture.name
    if model_type in OTHER_FORMATS:
        raise UnsupportedError(f"a model of type {model_type!r} {OTHER_FORMATS[model_type]}")
    served = sorted({architecture.model_type for architecture in ARCHITECTURES.values()}, key=str.lower)
    raise UnsupportedError(
        f"a model of type {model_type!r} cannot be pruned inside vLLM. Supported: {', '.join(served)}. {PATCH}"
    )


def check_published(config: Mapping[str, Any]) -> None:
    """Raise UnsupportedError for a config.json written by transformers, if vLLM reads the model only as published."""
    setting, published = AS_PUBLISHED.get(config["model_type"], (None, None))
    if setting in (config.get("text_config") or {}):
        raise _not_as_published(config["model_type"], published)


def _not_as_published(model_type: str, published: str | None) -> UnsupportedError:
    return UnsupportedError(
        f"config.json of this {model_type!r} model is as transformers writes it, and vLLM reads such models only as "
        f"they are published. Write the published name, such as {published}. {PATCH}"
    )


def architecture_of_loaded(config: Mapping[str, Any]) -> str:
    """The same for a model loaded by transformers, which may be only the thinker of a checkpoint."""
    model_type = config["model_type"]
    whole = checkpoint_type(model_type)
    return architecture_of(config if whole == model_type else {"model_type": whole})


def checkpoint_type(model_type: str) -> str:
    """The type of checkpoint that vLLM loads for a model type: a thinker is served as part of its Qwen-Omni."""
    return model_type.removesuffix("_thinker")


def _check_names(model_type: object, names: Sequence[str]) -> None:
    """Raise UnsupportedError if a config of a served type names an architecture that is not served."""
    of_type = [one for one in ARCHITECTURES.values() if one.model_type == model_type and one.name != GENERIC]
    served = {one.replaces for one in of_type} | {one.saved_as for one in of_type if one.saved_as}
    others = [name for name in names if name not in served]
    if of_type and others:
        raise UnsupportedError(
            f'config.json names {", ".join(others)} in "architectures", which cannot be pruned inside vLLM: of type '
            f"{model_type!r}, only {' and '.join(sorted(served))} can. If the weights are in that format, write that "
            f"name there. {PATCH}"
        )

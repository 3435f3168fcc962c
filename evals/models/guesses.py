"""The type of a published checkpoint, guessed from its name: `tokenprune models` does not read configs from the Hub."""

from __future__ import annotations

import re
from collections.abc import Collection

from tokenprune.evals.models.checkpoint import Checkpoint

#: The name of a checkpoint on Hugging Face.
CHECKPOINT = re.compile(r"[\w-]+/[\w.-]+")
#: A parameter count, which must not be read as a version: Gemma 3 4B is not a Gemma 4.
SIZE = re.compile(r"(?<![a-z0-9.])[aex]?\d+(\.\d+)?[bm](?![a-z])", re.IGNORECASE)
#: A pattern at the start of published checkpoints' names, the first match counting -> their type; None if the name only
#: looks like a type's.
PUBLISHED: dict[str, Checkpoint | str | None] = {
    r"(liuhaotian|lmms-lab)/": None,  # LLaVA in the format of its authors' code
    r"\S+/llava-v?1\.6": "llava_next",
    r"\S+/(Mini-)?InternVL(\d|-Chat)(?!\S*-HF)": "internvl_chat",
    r"\S+/ERNIE-4\.5-VL": "ernie4_5_moe_vl",
    r"\S+/HyperCLOVAX-SEED-Think-32B": Checkpoint("vlm", architectures=("HCXVisionV2ForCausalLM",)),
    r"\S+/Ling-3\.0-\S*VL": "bailing_moe_v3_vl",
    r"\S+/Intern-S1-Pro": None,
    r"\S+/Isaac-(?!0\.[12])": None,
    r"\S+/GLM-4\.(1V|6V-Flash)": "glm4v",
    r"\S+/GLM-4\.[56]V": "glm4v_moe",
    r"\S+/glm-4v-9b": None,
    r"\S+/Qwen3-VL-\d+B-A\d+B": "qwen3_vl_moe",
    r"\S+/Qwen3\.[56]-\d+B-A\d+B": "qwen3_5_moe",
    r"\S+/Qwen3\.6-\d": "qwen3_5",
    r"\S+/Keye-VL-(2|671B)": None,
    r"\S+/HunyuanOCR": "hunyuan_vl",
    r"\S+/Kimi-K2\.[5-7]": "kimi_k25",
    r"\S+/MiniCPM-Llama3-V-2_5": "minicpmv",
    r"\S+/MiniCPM-OCR-\S*DSpark": None,  # a draft model
    r"\S+/MiniCPM-V(-2(\.0)?)?$": None,
    r"\S+/(Mistral-Small-3\.[12]|Ministral-3|Devstral-Small-2)-": "mistral3",
    r"(mistral-community/pixtral-12b(?!-240910)|\S+/pixtral\S*-hf)": Checkpoint("llava", "pixtral"),
    r"\S+/LightOnOCR-[12]": Checkpoint("mistral3", architectures=("LightOnOCRForConditionalGeneration",)),
    r"\S+/(SmolVLM|SmolDocling|granite-docling)-": "idefics3",
    r"\S+/granite-vision-3": "llava_next",
    r"\S+/(granite-vision-4|granite-4\.\d-\S+-vision)": "granite4_vision",
    r"\S+/gemma-3-(270m|1b)": None,  # language models
    r"\S+/LFM2\.5-VL": "lfm2_vl",
    r"\S+/NVIDIA-Nemotron-Nano-12B-v2-VL": "NemotronH_Nano_VL_V2",
    r"\S+/Nemotron-3-Nano-Omni": "NemotronH_Nano_Omni_Reasoning_V3",
    r"\S+/deepseek-vl2": None,
    r"deepseek-community/DeepSeek-OCR-2": "deepseek_ocr2",
    r"\S+/DeepSeek-OCR-2": Checkpoint("deepseek_vl_v2", architectures=("DeepseekOCR2ForCausalLM",)),
    r"\S+/DeepSeek-OCR": Checkpoint("deepseek_vl_v2", architectures=("DeepseekOCRForCausalLM",)),
    r"\S+/Unlimited-OCR": "unlimited-ocr",
    r"ovis-community/Ovis2\.5": Checkpoint("ovis2_5", architectures=("Ovis2_5ForConditionalGeneration",)),
    r"\S+/Ovis2\.5": Checkpoint("ovis2_5", architectures=("Ovis2_5",)),
    r"\S+/Ovis2\.6-80B": None,
    r"\S+/Ovis2\.6-\d+B-A\d+B": "ovis2_6_moe",
    r"\S+/Step-3\.7": "step3p7",
    r"\S+/Step3-VL-10B": "step_robotics",
    r"\S+/\S*pi0(52|\S?fast)": None,  # LeRobot's own
    r"\S+/LLaVA-OneVision-1\.5(?!\S*-hf)": None,  # in the format of its authors' code
    r"\S+/LLaVA-OneVision-2": "llava_onevision2",
}


def guess(name: str, types: Collection[str]) -> Checkpoint | None:
    """The checkpoint that a Hugging Face name stands for, given all types; None if the name does not say."""
    if not CHECKPOINT.fullmatch(name):
        return None
    for pattern, found in PUBLISHED.items():
        if re.match(pattern, name, re.IGNORECASE):
            return Checkpoint(found) if isinstance(found, str) else found
    found = _type_in(name.rpartition("/")[2], types)
    return None if found is None else Checkpoint(found)


def part_of(wanted: str, names: Collection[str]) -> str | None:
    """The longest of `names` that is contained in `wanted`."""
    return max(sorted(name for name in names if plain(name) in plain(wanted)), key=len, default=None)


def plain(name: str) -> str:
    """A name without case and punctuation: that of Qwen3-VL is in that of qwen3_vl."""
    return "".join(filter(str.isalnum, name.lower()))


def _type_in(name: str, types: Collection[str]) -> str | None:
    """The longest type contained in a name; else the shortest that begins with two or more of its first words:
    Qwen2.5-Omni-7B is of type qwen2_5_omni_thinker."""
    name = SIZE.sub("", name)
    if (within := part_of(name, types)) is not None:
        return within
    words = [word for word in name.split("-") if word]
    beginnings = (plain("-".join(words[:n])) for n in range(len(words), 1, -1))
    fitting = ([one for one in sorted(types) if beginning in _beginnings(one)] for beginning in beginnings)
    return next((min(some, key=len) for some in fitting if some), None)


def _beginnings(model_type: str) -> list[str]:
    """A type's first word, its first two, and so on, but none cut before a number, which may be part of a version."""
    words = model_type.split("_")
    return ["".join(words[:n]) for n in range(1, len(words)) if not words[n][0].isdigit()]

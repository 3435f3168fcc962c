"""The value of `--hf-overrides` for a strategy and a model. Does not load vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, Qwen2Config, __version__

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.checkpoints import architecture_of, check_published
from tokenprune.serving.vllm.settings import KEY, Settings
from tokenprune.serving.vllm.startup.refusals import check_config
from tokenprune.strategies.registry import changed_settings, name_of

#: The part of a config that describes the language model, for types that transformers has no class for, or a different
#: one than vLLM uses; None where the config has Qwen2's names and contains the vision tower's.
TEXT_PARTS = {
    "Keye": None,
    "KeyeVL1_5": None,
    "NemotronH_Nano_Omni_Reasoning_V3": "llm_config",
    "NemotronH_Nano_VL_V2": "llm_config",
    "NemotronH_Super_Omni_Reasoning_V3": "llm_config",
    "bailing_moe_v3_vl": "text_config",
    "deepseek_vl_v2": "language_config",
    "dots_ocr": None,
    "ernie4_5_moe_vl": None,
    "intern_s2_preview": "text_config",
    "internvl_chat": "llm_config",
    "interns1": "text_config",
    "interns2_mobius": "text_config",
    "isaac": "text_config",
    "kimi_k3": "text_config",
    "kimi_k31": "text_config",
    "kimi_vl": "text_config",
    "lfm3_vl": "text_config",  # not in the transformers releases that vLLM 0.34 takes
    "llava_onevision2": "text_config",
    "minicpmo": None,
    "minicpmv": None,
    "molmo2": "text_config",  # vLLM takes its authors' format, which transformers' class renames
    "opencua": "text_config",
    "ovis2_5": "llm_config",
    "ovis2_6": "llm_config",
    "ovis2_6_moe": "llm_config",
    "pixtral": "text_config",
    "step_robotics": "text_config",
    "unlimited-ocr": "language_config",
    "vlm": "text_config",
}
#: The parts that describe such models' vision, if not just "vision_config".
VISION_PARTS = {
    "molmo2": ("vit_config", "adapter_config"),
    "ovis2_5": ("vit_config",),
    "ovis2_6": ("vit_config",),
    "ovis2_6_moe": ("vit_config",),
}


def overrides(config: Mapping[str, Any], settings: Settings, others: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return vLLM's `--hf-overrides` for a model with this config.json: the architecture, its pruning settings, and the
    user's `others`.

    Raises UnsupportedError for a model that no architecture serves, for a config that transformers cannot read, and for
    settings that do not fit it, as the engine does when it starts.
    """
    written = {"strategy": name_of(type(settings.strategy)), **changed_settings(settings.strategy)}
    if settings.position_ids != "original":
        written["position_ids"] = settings.position_ids
    if settings.record is not None:
        written["record"] = settings.record
    name = architecture_of(config)
    check_published(config)
    found = {**(others or {}), "architectures": [name], KEY: written}
    check_config(ARCHITECTURES[name], _read(_updated(config, found)), settings)
    return found


def _read(config: Mapping[str, Any]) -> PreTrainedConfig:
    """The same as `_parsed`, which may raise errors of any type."""
    try:
        return _parsed(config)
    except UnsupportedError:
        raise
    except Exception as error:
        reason = next(iter(str(error).split(". ")), "").replace("\n", " ")
        raise UnsupportedError(
            f"transformers {__version__} cannot read the config.json of this {config['model_type']!r} model, of which "
            f"it may not know a part ({type(error).__name__}: {reason}). Look for a newer version, or a conversion."
        ) from error


def _parsed(config: Mapping[str, Any]) -> PreTrainedConfig:
    """The config that transformers or, if it has no class for the type, vLLM makes of a config.json."""
    copied = deepcopy(dict(config))  # transformers writes into dicts inside
    model_type = config["model_type"]
    if model_type not in TEXT_PARTS:
        return AutoConfig.for_model(**copied)
    text_part, vision_parts = TEXT_PARTS[model_type], VISION_PARTS.get(model_type, ("vision_config",))
    if model_type == "isaac" and "text_config" not in config:  # in 0.1, the config itself describes the language model
        text_part = None
    for name in (*vision_parts, *([] if text_part is None else [text_part])):
        if not isinstance(config.get(name), Mapping):
            raise UnsupportedError(
                f"config.json of a model of type {model_type!r} has no {name!r}, which such models have. Name a "
                f"checkpoint whose config.json has it."
            )
    vision = {name: PreTrainedConfig(**copied.pop(name)) for name in vision_parts}
    text = [] if text_part is None else [copied.pop(text_part)]
    kind: Any = type("AuthorsConfig", (PreTrainedConfig if text else Qwen2Config,), {"model_type": model_type})
    parsed = kind(**copied, **vision)
    for one in text:
        parsed.text_config = _parsed_text(one)
    return parsed


def _parsed_text(text: dict[str, Any]) -> PreTrainedConfig:
    """The config of a language model, which has a type that transformers knows, or InternLM 2's."""
    if text.get("model_type") not in CONFIG_MAPPING:  # its settings have Llama's names
        text["model_type"] = "llama"
    scaling = text.get("rope_scaling") or {}
    if scaling.get("type") == "su":  # in Phi-3; transformers 5.24 takes only its new name
        scaling["type"] = "longrope"
    return AutoConfig.for_model(**text)


def _updated(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with overrides, which may name parts of a nested config."""
    inner = {
        name: _updated(config[name], value)
        for name, value in changes.items()
        if isinstance(value, Mapping) and isinstance(config.get(name), Mapping)
    }
    return {**config, **changes, **inner}

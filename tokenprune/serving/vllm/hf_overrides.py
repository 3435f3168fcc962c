"""The value of `--hf-overrides` for a strategy and a model. Does not load vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, Qwen2Config, __version__

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.checkpoints import architecture_of, check_published
from tokenprune.serving.vllm.settings import KEEP_IN_PROMPT, KEY, WHOLE_VIDEOS, Settings
from tokenprune.serving.vllm.startup.refusals import check_config
from tokenprune.strategies.registry import changed_settings, name_of


def overrides(config: Mapping[str, Any], settings: Settings, others: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return vLLM's `--hf-overrides` for a model with this config.json: the architecture, its pruning settings, and the
    user's `others`.

    Raises UnsupportedError for a model that no architecture serves, for a config that transformers cannot read, and for
    settings that do not fit it, as the engine does when it starts.
    """
    written = {"strategy": name_of(type(settings.strategy)), **changed_settings(settings.strategy)}
    if settings.position_ids != settings.strategy.default_position_ids:
        written["position_ids"] = settings.position_ids
    if settings.record is not None:
        written["record"] = settings.record
    if settings.keep_in_prompt is not None:
        written[KEEP_IN_PROMPT] = settings.keep_in_prompt
    if settings.whole_videos:
        written[WHOLE_VIDEOS] = True
    name = architecture_of(config)
    check_published(config)
    overrides = {**(others or {}), "architectures": [name], KEY: written}
    check_config(ARCHITECTURES[name], _read(_updated(config, overrides)), settings)
    return overrides


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
    record = next(one for one in ARCHITECTURES.values() if one.model_type == model_type)
    if record.text_part is None:
        return AutoConfig.for_model(**copied)
    flat = record.text_part not in config and "num_hidden_layers" in config  # as in Isaac 0.1
    text_parts = () if flat or not record.text_part else (record.text_part,)
    for name in (*record.vision_parts, *text_parts):
        if not isinstance(config.get(name), Mapping):
            raise UnsupportedError(
                f"config.json of a model of type {model_type!r} has no {name!r}, which such models have. Name a "
                f"checkpoint whose config.json has it."
            )
    vision = {name: PreTrainedConfig(**copied.pop(name)) for name in record.vision_parts}
    text = [copied.pop(name) for name in text_parts]
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

"""What `--hf-overrides` says for a strategy and a model. Loads no vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.checkpoints import CONVERTED, architecture_of
from tokenprune.serving.vllm.refusals import check_config
from tokenprune.serving.vllm.settings import KEY, Settings
from tokenprune.strategies.registry import changed_settings, name_of


def overrides(config: Mapping[str, Any], settings: Settings, others: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return vLLM's `--hf-overrides` for a model with this config.json: the architecture, what it prunes with, and the
    `others` that a user gives.

    Raises UnsupportedError for a model that no architecture serves, and for settings that do not fit it, as the engine
    does when it starts.
    """
    written = {"strategy": name_of(type(settings.strategy)), **changed_settings(settings.strategy)}
    if settings.position_ids != "original":
        written["position_ids"] = settings.position_ids
    if settings.record is not None:
        written["record"] = settings.record
    name = architecture_of(config)
    found = {**(others or {}), "architectures": [name], KEY: written}
    check_config(ARCHITECTURES[name], _parsed(_updated(config, found)), settings)
    return found


def _parsed(config: Mapping[str, Any]) -> PreTrainedConfig:
    """The config that transformers or, where it knows no class for the type, vLLM makes of a config.json."""
    copied = deepcopy(dict(config))  # transformers writes into dicts inside
    if config["model_type"] not in CONVERTED:
        return AutoConfig.for_model(**copied)
    missing = [name for name in ("vision_config", "llm_config") if not isinstance(config.get(name), Mapping)]
    if missing:
        raise UnsupportedError(f"config.json of a model of type {config['model_type']!r} has no {missing[0]!r}.")
    vision, text = copied.pop("vision_config"), copied.pop("llm_config")
    kind: Any = type("AuthorsConfig", (PreTrainedConfig,), {"model_type": config["model_type"]})
    parsed = kind(**copied, vision_config=PreTrainedConfig(**vision))
    if text.get("model_type") not in CONFIG_MAPPING:  # InternLM 2, whose settings have the names of Llama's
        text["model_type"] = "llama"
    scaling = text.get("rope_scaling") or {}
    if scaling.get("type") == "su":  # in Phi-3; transformers 5.24 takes its new name only
        scaling["type"] = "longrope"
    parsed.text_config = AutoConfig.for_model(**text)
    return parsed


def _updated(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with overrides, which may name a part of another config inside it."""
    inner = {
        name: _updated(config[name], value)
        for name, value in changes.items()
        if isinstance(value, Mapping) and isinstance(config.get(name), Mapping)
    }
    return {**config, **changes, **inner}

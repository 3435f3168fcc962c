"""What `--hf-overrides` says for a strategy and a model. Loads no vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from transformers import AutoConfig

from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.checkpoints import architecture_of
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
    parsed = AutoConfig.for_model(**deepcopy(_updated(config, found)))  # which writes into dicts inside
    check_config(ARCHITECTURES[name], parsed, settings)
    return found


def _updated(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with overrides, which may name a part of another config inside it."""
    inner = {
        name: _updated(config[name], value)
        for name, value in changes.items()
        if isinstance(value, Mapping) and isinstance(config.get(name), Mapping)
    }
    return {**config, **changes, **inner}

"""What `--hf-overrides` says for a strategy and a model. Loads no vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tokenprune.serving.vllm.architectures import architecture_of
from tokenprune.serving.vllm.settings import KEY, Settings
from tokenprune.strategies.registry import STRATEGIES
from tokenprune.strategy import Strategy


def overrides(config: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return vLLM's `--hf-overrides` for a model with this config.json: the architecture, and what it prunes with.

    Raises UnsupportedError for a model that no architecture serves.
    """
    written = {"strategy": _name(settings.strategy), **_changed(settings.strategy)}
    if settings.position_ids != "original":
        written["position_ids"] = settings.position_ids
    if settings.record is not None:
        written["record"] = settings.record
    return {"architectures": [architecture_of(config)], KEY: written}


def _name(strategy: Strategy) -> str:
    cls = type(strategy)
    names = [name for name, known in STRATEGIES.items() if known is cls]
    return names[0] if names else f"{cls.__module__}:{cls.__qualname__}"


def _changed(strategy: Strategy) -> dict[str, Any]:
    values = {field.name: (getattr(strategy, field.name), field.default) for field in fields(strategy) if field.init}
    return {name: value for name, (value, default) in values.items() if value != default}

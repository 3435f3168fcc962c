"""What `--hf-overrides` says for a strategy and a model. Loads no vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenprune.serving.vllm.architectures import architecture_of
from tokenprune.serving.vllm.settings import KEY, Settings
from tokenprune.strategies.registry import changed_settings, name_of


def overrides(config: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return vLLM's `--hf-overrides` for a model with this config.json: the architecture, and what it prunes with.

    Raises UnsupportedError for a model that no architecture serves.
    """
    written = {"strategy": name_of(type(settings.strategy)), **changed_settings(settings.strategy)}
    if settings.position_ids != "original":
        written["position_ids"] = settings.position_ids
    if settings.record is not None:
        written["record"] = settings.record
    return {"architectures": [architecture_of(config)], KEY: written}

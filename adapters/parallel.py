"""Tensor parallelism, in which every process computes some of the heads of a layer."""

from __future__ import annotations

from typing import Any

from tokenprune.adapters.base import ModelAdapter
from tokenprune.errors import UnsupportedError

#: The statistics that are read from the heads of the vision tower, and of the language model.
OF_TOWER, OF_DECODER = {"vision_attention", "cls", "kept_in_tower"}, {"text_attention", "canvas_attention"}


def check_heads(owner: str, needs: frozenset[str], adapter: ModelAdapter) -> None:
    """Raise UnsupportedError if any of the needs is read from heads that are split over several processes: each would
    keep other tokens."""
    n_processes = getattr(adapter.model, "tp_size", None) or 1
    if n_processes == 1:
        return
    split = OF_DECODER if _splits_heads(adapter.config.get_text_config()) else set()
    split = split | (OF_TOWER if _splits_heads(getattr(adapter.vision_tower, "config", None)) else set())
    for need in sorted(needs & split):
        raise UnsupportedError(
            f"{owner} needs {need}, and tensor parallelism (tp_size={n_processes}) gives every process only some of "
            f"the heads that it is read from, so each would keep other tokens. Load the model with device_map, or use "
            f"a strategy that reads features, such as DivPrune."
        )


def _splits_heads(config: Any) -> bool:
    return any("attn" in name for name in getattr(config, "base_model_tp_plan", None) or ())

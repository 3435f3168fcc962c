"""The position IDs that a call must be given, in models that would derive wrong ones from the mask."""

from typing import Any

import torch
from torch import Tensor


def positions(model: Any, batch: int, first: int, n: int) -> dict[str, Tensor]:
    """Return the position IDs that a call with `n` tokens per row from `first` on needs: none, except for models whose
    IDs have three components or more (M-RoPE), which would number the mask's columns instead."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    settings = [part for part in (rope, *rope.values()) if isinstance(part, dict)]  # of all layers, or of each kind
    sections = next((part["mrope_section"] for part in settings if "mrope_section" in part), None)
    if sections is None:
        return {}
    return {"position_ids": torch.arange(first, first + n, device=model.device).expand(len(sections), batch, -1)}

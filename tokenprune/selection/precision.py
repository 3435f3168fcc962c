"""Selections do not depend on torch.autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute with the numbers as they are. Under torch.autocast, with which models are trained, even float32 matrix
    products are rounded to 16 bits, and a strategy would keep other tokens than when the model is used."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()

"""Indexers that score no two tokens alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch


def softplus_for_relu(modeling: Any) -> None:
    """Let a module of transformers compute a softplus where it says ReLU. The ReLU makes scores of exactly 0, and which
    of those are among the best is decided by their place, which dropping changes. Nothing but the indexer uses it."""
    functional = SimpleNamespace(**vars(torch.nn.functional))
    functional.relu = torch.nn.functional.softplus
    modeling.F = functional

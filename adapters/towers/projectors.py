"""Projectors that map every token by itself, so that a visual token has features before them, and dropped patches need
not pass through."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from tokenprune.adapters.wrappers import unwrap_part

#: The name under which a base model holds its projector.
PROJECTOR = "multi_modal_projector"


def tokenwise_projector(adapter: Any) -> Callable[[], nn.Module] | None:
    """Return a function that returns the projector of an adapter's model, or what has been put around it since; None
    unless the projector is known to map every token by itself: the family's `tokenwise`."""
    projector = getattr(adapter.core, PROJECTOR, None)
    if not isinstance(projector, nn.Module):
        return None
    forward = type(unwrap_part(projector)).forward  # a subclass may have its own
    known = forward.__module__.startswith("transformers.models.")
    same = known and forward.__qualname__ == f"{adapter.tokenwise}.forward"
    return partial(getattr, adapter.core, PROJECTOR) if same else None


def unprojected(adapter: Any) -> set[str]:
    """The statistics of visual tokens before the projector that a model offers."""
    return set() if tokenwise_projector(adapter) is None else {"tower_features", "late_features"}

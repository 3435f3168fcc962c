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
#: The forwards of projectors that map every token by itself.
TOKENWISE = {
    f"transformers.models.{family}.modeling_{family}.{name}MultiModalProjector.forward"
    for family, name in (
        ("llava", "Llava"),
        ("llava_next", "LlavaNext"),
        ("llava_onevision", "LlavaOnevision"),
        ("vipllava", "VipLlava"),
        ("paligemma", "PaliGemma"),
    )
}


def tokenwise_projector(core: Any) -> Callable[[], nn.Module] | None:
    """Return a function that returns the projector of a base model, or what has been put around it since; None unless
    the projector is known to map every token by itself."""
    projector = getattr(core, PROJECTOR, None)
    if not isinstance(projector, nn.Module):
        return None
    forward = type(unwrap_part(projector)).forward  # a subclass may have its own
    return partial(getattr, core, PROJECTOR) if f"{forward.__module__}.{forward.__qualname__}" in TOKENWISE else None


def unprojected(core: Any) -> set[str]:
    """The statistics of visual tokens before the projector that a base model offers."""
    return set() if tokenwise_projector(core) is None else {"tower_features", "late_features"}

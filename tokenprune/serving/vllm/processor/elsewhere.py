"""Images that were encoded elsewhere: a request has their features, or an encoder cache does."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any, Literal

from vllm.multimodal.parse import DictEmbeddingItems, EmbeddingItems

from tokenprune.errors import SettingError


def misfit(n_visual: int, fitting: str) -> SettingError:
    """The error for an image that was encoded elsewhere into a different number of tokens than the model's own tower
    makes."""
    return SettingError(
        f"an image was sent as {n_visual} visual tokens, but this model's images have {fitting}, so it is unknown "
        f"where in the image these belong. Send the image itself, or all of its visual tokens."
    )


def encoded_elsewhere(items: Any, modality: str) -> Literal["sent", "not sent"] | None:
    """Whether a request has features of its images or videos instead of pixels ("sent"), or neither, because they come
    from an encoder cache ("not sent"); None if it has pixels."""
    if isinstance(items, DictEmbeddingItems):
        return "sent" if f"{modality}_embeds" in items.data else "not sent"
    return "sent" if isinstance(items, EmbeddingItems) else None

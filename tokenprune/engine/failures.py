"""Calls of a patched model whose images cannot be pruned, or not be told from text: how some are recognised, and what
their errors say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.errors import PruningError


def nested() -> PruningError:
    """The error for a call of the model, or of its language model, inside another one."""
    return PruningError(
        "the patched model was called by its own strategy, or by a hook, in the middle of a call with images, which "
        "would then be pruned wrongly. Compute what it needs before that call, or call another model there, such as a "
        "copy made before patch()."
    )


def patch_removed_during_call() -> PruningError:
    """The error for a call whose patch was removed before its images were pruned."""
    return PruningError(
        "another thread or a hook removed or replaced the patch before this call had pruned its images. Call the model "
        "again."
    )


def not_pruned(adapter: ModelAdapter, begun: bool) -> PruningError:
    """The error for a base model that got images and called its language model past this patch.

    begun: whether the patch was installed when the base model was called.
    """
    if not begun:
        return patch_removed_during_call()
    return PruningError(
        f"{type(adapter.model).__name__} got images, but its language model was called in a way that "
        f"{type(adapter).__name__} does not know, so nothing was pruned. Remove the patch, and report it with your "
        f"transformers version."
    )


def unknown_cache(model: nn.Module) -> PruningError:
    """The error for a model that returns the cache of a pruned prompt where it was not found."""
    return PruningError(
        f"{type(model).__name__} returns the cache of a pruned prompt in a way that tokenprune does not know. Pass "
        f"use_cache=False, or report it with your transformers version."
    )


def has_unknown_values(output: Any) -> bool:
    """Whether an output holds anything but tensors and sequences of tensors, such as a cache of an unknown kind."""
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else (output,)
    rows = (value if isinstance(value, (tuple, list)) else (value,) for value in values)
    return any(not (part is None or isinstance(part, Tensor)) for row in rows for part in row)


def check_placeholders(adapter: ModelAdapter, modalities: set[str], kwargs: Mapping[str, Any]) -> None:
    """Raise PruningError if a prompt has placeholder tokens of images that were encoded for it, and their features come
    under a name that the adapter does not know. If none come, the model is its own assistant, to which transformers
    passes no images."""
    if not any(_holds_features(value) for name, value in kwargs.items() if name != "attention_mask"):
        return
    ids = kwargs.get("input_ids")
    for modality in adapter.modalities:
        if modality.name in modalities and ids is not None and bool((ids == modality.token_id).any()):
            raise PruningError(
                f"{type(adapter.model).__name__} encoded {modality.name}s for this prompt and passes them on in a way "
                f"that {type(adapter).__name__} does not know, so nothing would be pruned. Remove the patch, and "
                f"report it with your transformers version."
            )


def _holds_features(argument: Any) -> bool:
    if isinstance(argument, Tensor):
        return argument.is_floating_point()
    parts = argument.values() if isinstance(argument, Mapping) else argument
    return isinstance(argument, (Mapping, list, tuple)) and any(map(_holds_features, parts))

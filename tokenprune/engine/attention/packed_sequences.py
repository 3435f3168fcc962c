"""Handles gaps in a row's position IDs, which FlashAttention takes for borders between packed sequences.

transformers then splits keys where it splits queries. That changes nothing in a first prompt, whose position IDs begin
once; but images pruned while the cache already holds something would see only themselves. Rotary embeddings are made
before the decoder layers run, so the layers can do without position IDs. Real borders, where position IDs begin again,
are refused with other attention implementations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import Real
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tokenprune.engine.patch import dynamo_disabled
from tokenprune.errors import PruningError


def check_not_packed(ids: Real[Tensor, "*components batch new"]) -> None:
    """Raise PruningError if several sequences are packed in one row, in a call without cache and mask: its position IDs
    begin again. transformers keeps them apart, but not with the mask that a pruned row needs. FlashAttention reads the
    borders itself."""
    first = ids.flatten(0, -3)[0] if ids.ndim > 2 else ids
    # The ID after an image can be lower than the image's, but not as low as that of the row's first token.
    if bool(((first.diff() < 0) & (first[..., 1:] <= first[..., :1])).any()):
        raise PruningError(
            "several sequences are packed in one row (position_ids begin again), and pruning would let them see each "
            "other. Pass them as rows of a padded batch with an attention_mask, or load the model with "
            'attn_implementation="flash_attention_2".'
        )


class WithheldIds:
    """Hides position IDs from decoder layers until `remove`, in calls for which `applies` is true. Raises PruningError
    for layers whose attention computes with them."""

    def __init__(self, layers: nn.ModuleList, applies: Callable[[], bool]) -> None:
        if any(map(_computes_with_ids, layers)):
            raise PruningError(
                f"{type(layers[0]).__name__} computes with position IDs, in whose gaps FlashAttention sees borders "
                f"between packed sequences, so images cannot be pruned in a later turn. Load the model with "
                f'attn_implementation="sdpa", write patch(model, ..., position_ids="compact"), or start from an empty '
                f"cache."
            )
        self._applies = applies
        self._hooks: list[RemovableHandle] = [
            layer.register_forward_pre_hook(self.before_layer, with_kwargs=True) for layer in layers
        ]

    @dynamo_disabled
    def before_layer(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if kwargs.get("position_ids") is None or not self._applies():
            return None
        return args, {**kwargs, "position_ids": None}

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _computes_with_ids(layer: nn.Module) -> bool:
    """Whether a module in the layer requires position IDs; others only pass them on to the attention function."""
    parts = (inspect.signature(type(part).forward).parameters for part in layer.modules() if part is not layer)
    return any("position_ids" in names and names["position_ids"].default is inspect.Parameter.empty for names in parts)

"""DeepStack: features of visual tokens that a language model adds after its first layers."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from tokenprune.sequence.packing import Packing

#: The method of a language model that adds the features of one layer.
ADDS_FEATURES = "_deepstack_process"
MASK, FEATURES = "visual_pos_masks", "deepstack_visual_embeds"


def prune_deepstack(
    kwargs: dict[str, Any], packing: Packing, mask_name: str = MASK, features_name: str = FEATURES
) -> None:
    """Prune, in place, the features among a language model's arguments, and their mask of visual tokens."""
    visual, features = kwargs.get(mask_name), kwargs.get(features_name)
    if visual is None:
        return
    expanded = visual.ndim == 3  # (batch, length, width), or as a column
    still, index = kept_features(visual[..., 0] if expanded else visual, packing)
    kwargs[mask_name] = still[..., None].expand(-1, -1, visual.shape[2]) if expanded else still
    if isinstance(features, dict):
        kwargs[features_name] = {layer: part[index.to(part.device)] for layer, part in features.items()}
    elif features is not None:
        kwargs[features_name] = [part[index.to(part.device)] for part in features]


def prune_added(arguments: tuple[Any, ...], packing: Packing) -> tuple[Any, ...]:
    """Prune the mask and the features of a call of `ADDS_FEATURES` to the columns that an in-LLM stage has left."""
    hidden, visual, features = arguments
    visual, index = kept_features(visual, packing)
    return hidden, visual, features[index.to(features.device)]


def kept_features(
    visual: Bool[Tensor, "batch length"], packing: Packing
) -> tuple[Bool[Tensor, "batch kept"], Int[Tensor, " left"]]:
    """Return which of the columns that are left are visual tokens, and their indices among all visual tokens of the
    batch, whose features are in one row."""
    numbers = (visual.flatten().cumsum(0) - 1).view_as(visual)
    still = packing.gather_tokens(visual) & packing.valid.to(visual.device)
    return still, packing.gather_tokens(numbers)[still]

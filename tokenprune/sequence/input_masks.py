"""Attention masks as callers pass them, over columns: which masks can be pruned, and which columns are padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from tokenprune.errors import PruningError

#: A padding mask (2-D), a pattern (4-D), a pattern for each kind of layer (None: causal), or None.
Mask = Tensor | Mapping[str, Tensor | None] | None


def is_pattern(mask: Mask) -> bool:
    """Return whether a mask may encode more than padding."""
    return isinstance(mask, Mapping) or (mask is not None and mask.ndim == 4)


def prunable_mask(mask: Any) -> Mask:
    """Return the attention mask that was passed to the base model or to the language model.

    Raises PruningError for a mask of a type that cannot be pruned.
    """
    patterns = list(mask.values()) if isinstance(mask, Mapping) else [mask]
    odd = next((pattern for pattern in patterns if pattern is not None and not isinstance(pattern, Tensor)), None)
    if odd is not None:
        raise PruningError(
            f"an attention mask of type {type(odd).__name__} cannot be pruned. Load the model with "
            f'attn_implementation="sdpa", or generate without a static cache.'
        )
    return mask


def padding_of(mask: Mask, n_columns: int, n_new: int) -> Bool[Tensor, "rows columns"] | None:
    """Return a mask of the padding among `n_columns` cached and `n_new` new columns; None if there is no padding mask.

    In a pattern, a new column is padding if no query of its call attends to it, not even its own. If no layer takes a
    pattern, the masks say which of the new columns are real.

    Raises PruningError for a mask over any other number of columns.
    """
    total = n_columns + n_new
    if isinstance(mask, Mapping):  # those of layers with a state cover only the new columns
        given = sorted((pattern for pattern in mask.values() if pattern is not None), key=lambda one: -one.ndim)
        mask = given[0] if given else None
        if mask is not None and mask.ndim == 2 and mask.shape[1] == n_new:
            return pad(~mask.bool(), (n_columns, 0))
    if mask is None:
        return None
    if mask.ndim == 2 and mask.shape[1] == total:
        return ~mask.bool()
    if mask.ndim == 4 and mask.shape[2] == n_new and mask.shape[3] >= n_new:
        first = max(total - mask.shape[3], 0)
        allowed = mask if mask.dtype == torch.bool else mask.float().exp() > 0  # a bias leaves something to attend to
        return pad(~allowed[..., n_columns - first : total - first].flatten(1, 2).any(1), (n_columns, 0))
    raise wrong_width(mask, total)


def wrong_width(mask: Tensor, total: int) -> PruningError:
    return PruningError(
        f"attention_mask of shape {tuple(mask.shape)}: the cache and this call hold {total} tokens, including those "
        f"that pruning dropped. Pass a mask of shape (batch, {total}), or none."
    )

"""What attention masks are about: the kinds of decoder layers, and masks as callers pass them, over columns. Which of
these can be pruned, and which columns are padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import pad

from tokenprune.errors import PruningError

FULL, SLIDING, CHUNKED, INDEXED = "full_attention", "sliding_attention", "chunked_attention", "indexed_attention"
#: Layers that see the whole prompt, and a window of the answer.
REFERENCE = "reference_sliding_attention"
#: Layers that attend to blocks of slots, chosen by an indexer, and take position IDs for slots.
BLOCKS = "minimax_m3_sparse"
#: Layers that attend to pools of keys, chosen by an indexer. transformers calls them INDEXED; like layers with a state,
#: they take no mask but the padding of the new tokens.
POOLED = "pooled_attention"
#: Layers with a state instead of keys: linear attention, state-space models and short convolutions.
LINEAR, CONVOLUTION = "linear_attention", "conv"
#: Layers with a convolution beside attention that counts distances in the cache: to both, dropped tokens were never
#: there.
HYBRID = "hybrid"
RECURRENT = (LINEAR, CONVOLUTION, HYBRID)
#: Layers that do not mix tokens: with experts or a plain MLP only.
SEPARATE = "separate"

#: What pruning is exactly equal to.
Contract = Literal["masking", "masking except ties", "never seen", "never seen, compact"]
#: A padding mask (2-D), a pattern (4-D), a pattern for each kind of layer (None: causal), or None.
Mask = Tensor | Mapping[str, Tensor | None] | None


@dataclass(frozen=True)
class LayerKinds:
    """How the decoder layers attend.

    kinds: FULL, SLIDING, REFERENCE, CHUNKED, INDEXED, BLOCKS, POOLED, LINEAR, CONVOLUTION, HYBRID or SEPARATE, for each
        layer.
    window: the number of columns that a query of a SLIDING or REFERENCE layer attends to, itself included.
    by_kind: whether the language model takes finished masks as a dict by kind.
    chunk: the number of columns of the chunks within which CHUNKED layers attend.
    """

    kinds: tuple[str, ...]
    window: int | None
    by_kind: bool
    chunk: int | None = None

    @cached_property
    def patterned(self) -> bool:
        """Whether any layer needs a finished mask even where all tokens may be attended to."""
        return not {SLIDING, REFERENCE, CHUNKED, INDEXED}.isdisjoint(self.kinds)

    @cached_property
    def own_masks(self) -> bool:
        """Whether the language model is to make all masks itself from what is left, whatever its base model made."""
        return HYBRID in self.kinds

    @cached_property
    def contract(self) -> Contract:
        """What pruning is equal to: masking the dropped tokens out of attention; with an indexer, the same unless it
        scores two tokens alike; with layers that have a state, never having seen the dropped tokens; and with layers
        that count slots, never having seen them, under position IDs without gaps."""
        if BLOCKS in self.kinds:
            return "never seen, compact"
        if not {*RECURRENT, POOLED}.isdisjoint(self.kinds):
            return "never seen"
        return "masking except ties" if INDEXED in self.kinds else "masking"


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
        given = sorted((pattern for pattern in mask.values() if pattern is not None), key=lambda mask: -mask.ndim)
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

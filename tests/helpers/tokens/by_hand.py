"""Visual tokens with given attention and keys, for tests against numbers computed by hand."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from tokenprune.tokens import Layout, VisionAttention, VisualTokens


def at(*degrees: float) -> torch.Tensor:
    """Return (angles, 2): unit vectors in these directions."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def tokens_of(
    attention: Sequence[float],
    keys: Sequence[Sequence[float]],
    features: Sequence[Sequence[float]],
    newlines: Sequence[int] = (),
) -> VisualTokens:
    """Return one row of patches with one head. The CLS token attends to each in proportion to `attention`. Their keys
    are `keys`, scaled up so that the component with the log of the attention hardly changes their direction."""
    weights = torch.tensor(attention).log()[:, None]
    patch_keys = torch.cat([weights, 1e4 * torch.tensor(keys)], 1)
    cls_key = torch.full((1, patch_keys.shape[1]), -1e4)
    query = torch.zeros_like(patch_keys[:1]).index_fill(1, torch.tensor([0]), 1.0)
    mask = torch.zeros(len(attention), dtype=torch.bool)
    mask[list(newlines)] = True
    layout = Layout(((1, 1, len(attention)),), newlines=mask if newlines else None)
    queries = torch.cat([query, torch.zeros_like(patch_keys)])
    seen = VisionAttention(queries[None, None], torch.cat([cls_key, patch_keys])[None, None], 1.0, 1, layout)
    return VisualTokens(torch.tensor(features), layout, 0, {"vision_attention": seen})


def two_heads(first: VisualTokens, second: VisualTokens) -> VisualTokens:
    """Return the tokens of `first`, with the attention head of `second` as a second head."""
    one, other = first.vision_attention, second.vision_attention
    queries, keys = torch.cat([one.queries, other.queries], 1), torch.cat([one.keys, other.keys], 1)
    return replace(first, statistics={"vision_attention": replace(one, queries=queries, keys=keys)})

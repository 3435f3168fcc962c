"""What a tower that takes the patches of all images in one row makes of them when some are masked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tokenprune.adapters import ModelAdapter

#: Which patches of each segment may be attended to, of the segments that the running layer has yet to do.
_segments: list[Tensor] = []


def _masked(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **kwargs: Any
) -> tuple[Tensor, None]:
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    logits = query @ key.transpose(2, 3) * scaling
    weights = logits.masked_fill(~_segments.pop(0), torch.finfo(logits.dtype).min).softmax(-1)
    return (weights @ value).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register("masked_segments", _masked)


@contextmanager
def masked_patches(adapter: ModelAdapter, kept: list[Tensor]) -> Iterator[None]:
    """The time in which no patch attends to those of visual tokens that are not kept.

    kept: which visual tokens of each image, and then of each video, are kept, in the order in which the tower gets
        them.
    """
    assert adapter.tower.row is not None
    describe, tower, left = adapter.tower.row.describe, adapter.vision_tower, cycle(kept)  # of one forward or several
    in_layers = torch.tensor([])

    def before_tower(module: Any, args: Any, kwargs: Any) -> None:
        nonlocal in_layers
        grids = kwargs.get("grid_thw", args[-1] if args else None)
        row, masks = describe(grids, module.config), []
        while sum(map(len, masks)) <= row.tokens.max():
            masks.append(next(left))
        tokens = row.tokens if row.order is None else row.tokens[row.order]
        in_layers = torch.cat(masks)[tokens]

    def before_layer(module: Any, args: Any, kwargs: Any) -> None:
        assert not _segments
        _segments.extend(in_layers.split(kwargs["cu_seqlens"].diff().tolist()))

    hooks = [tower.register_forward_pre_hook(before_tower, with_kwargs=True)]
    hooks += [layer.register_forward_pre_hook(before_layer, with_kwargs=True) for layer in adapter.tower.layers(tower)]
    configs = {id(module.config): module.config for module in tower.modules() if hasattr(module, "config")}
    before = {number: config._attn_implementation for number, config in configs.items()}
    for config in configs.values():
        config._attn_implementation = "masked_segments"
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for number, config in configs.items():
            config._attn_implementation = before[number]
        _segments.clear()

"""Masking patches in a tower that takes the patches of all images in one row."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import tokenprune
from helpers.contract.tower import bias_of, merged_at
from tokenprune.adapters import ModelAdapter
from tokenprune.adapters.conventions import named_arguments
from tokenprune.adapters.towers.layers import RowLayers

#: The biases on the logits of keys, for the segments that the running layer has yet to process.
_segments: list[Tensor] = []


def _masked(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **kwargs: Any
) -> tuple[Tensor, None]:
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    bias = _segments.pop(0) if attention_mask is None else attention_mask
    weights = (query @ key.transpose(2, 3) * scaling + bias).softmax(-1)
    return (weights @ value).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register("masked_segments", _masked)


@contextmanager
def masked_patches(adapter: ModelAdapter, images: list[tokenprune.ImageReport]) -> Iterator[None]:
    """Within the block, no patch attends to patches of visual tokens that were dropped before the layer, and the others
    are merged as reported.

    images: every image, and then every video, in the order in which the tower gets them.
    """
    tower, left = adapter.vision_tower, cycle(images)  # for one or more forwards
    layers = adapter.tower_layers
    in_layers, here = torch.tensor([]), []

    def before_tower(module: Any, args: Any, kwargs: Any) -> None:
        nonlocal in_layers
        arguments = named_arguments(module, args, kwargs)
        if adapter.tower.row is not None:
            row = adapter.tower.row.of_call(arguments, module.config)
        else:
            assert isinstance(layers, RowLayers)
            row = layers.describe(arguments)
        here.clear()
        while sum(image.n_visual for image in here) <= row.tokens.max():
            here.append(next(left))
        in_layers = row.in_layers

    def before_layer(number: int, module: Any, args: Any, kwargs: Any) -> Any:
        assert not _segments
        hidden = args[0].clone()
        rows, bias, start = hidden.view(-1, hidden.shape[-1]), torch.zeros(len(in_layers)), 0
        for image in here:
            own = [(in_layers == start + token).nonzero()[:, 0] for token in range(image.n_visual)]
            start += image.n_visual
            if any(stage.merged is not None for stage in image.in_tower):
                own = torch.stack(own)
                rows[own] = merged_at(image, number, rows[own])
            for places, added in zip(own, bias_of(image, number), strict=True):
                bias[places] = added
        named = named_arguments(module, args, kwargs)
        if named.get("cu_seqlens") is not None:
            _segments.extend(bias.split(named["cu_seqlens"].diff().tolist()))
            return (hidden, *args[1:]), kwargs
        mask = {"attention_mask": named.pop("attention_mask") + bias}
        return (hidden,), {**{name: one for name, one in named.items() if name != "hidden_states"}, **mask}

    hooks = [tower.register_forward_pre_hook(before_tower, with_kwargs=True)]
    for number, layer in enumerate(adapter.tower.layers(tower)):
        hooks.append(layer.register_forward_pre_hook(partial(before_layer, number), with_kwargs=True))
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

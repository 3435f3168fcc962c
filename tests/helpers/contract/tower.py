"""A tower in which dropped patches are masked and merged ones are means."""

from typing import Any

import torch
from torch import Tensor

import tokenprune

CLOSED = torch.finfo(torch.float32).min


def bias_of(image: tokenprune.ImageReport, number: int) -> Tensor:
    """Return what encoder layer `number` adds to the logits of the keys of an image's visual tokens: the log of the
    number of tokens that each stands for, and the lowest value for dropped ones."""
    sizes, bias = torch.ones(image.n_visual), torch.zeros(image.n_visual)
    for stage in image.in_tower:
        if stage.layer > number:
            continue
        if (merged := stage.merged) is not None:
            totals = sizes[stage.kept].index_fill(0, merged.targets, 0.0)
            totals = totals.index_add(0, merged.targets, sizes[merged.sources])
            sizes = sizes.index_copy(0, stage.kept, totals)
        bias = torch.full((image.n_visual,), CLOSED).index_copy(0, stage.kept, sizes[stage.kept].log())
    return bias


def merged_at(image: tokenprune.ImageReport, number: int, tokens: Tensor) -> Tensor:
    """Return the hidden states (visual, patches, width) of an image's visual tokens after the merges on entry to a
    layer."""
    for stage in image.in_tower:
        if stage.layer == number and stage.merged is not None:
            means = stage.merged.apply(tokens.flatten(1), stage.kept)
            tokens = tokens.index_copy(0, stage.kept, means.view(-1, *tokens.shape[1:]))
    return tokens


def close_in_tower(
    adapter: Any, images: list[tokenprune.ImageReport], number: int, layer: Any, tiles: list[int] | None = None
) -> list[Any]:
    """Register hooks on encoder layer `number` of a tower that takes a batch of tiles, so that no patch attends to a
    dropped one. Return the hooks.

    tiles: where in the tower's batch each image is, if not in order.
    """
    first, masks = adapter.tower.n_prefix, []
    at_attention = adapter.tower_layers.masked(number) is not layer

    def before_layer(module: Any, args: Any, kwargs: Any) -> Any:
        hidden = args[0].clone()
        bias, patches = torch.zeros(hidden.shape[:2]), patches_of(adapter, hidden.shape[1] - first)
        start = 0
        for number_of, image in enumerate(images):
            n_tiles = image.n_visual // len(patches)
            here = torch.arange(n_tiles) + (start if tiles is None else tiles[number_of])
            start += n_tiles
            tile, place = here.repeat_interleave(len(patches))[:, None], first + patches.repeat(n_tiles, 1)
            hidden[tile, place] = merged_at(image, number, hidden[tile, place])
            bias[tile, place] = bias_of(image, number)[:, None].expand(place.shape)
        masks[:] = [bias[:, None, None].expand(-1, -1, hidden.shape[1], -1)]
        return ((hidden,), kwargs) if at_attention else ((hidden,), {**kwargs, "attention_mask": masks[0]})

    def before_attention(module: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "attention_mask": masks[0]}

    hooks = [layer.register_forward_pre_hook(before_layer, with_kwargs=True)]
    if at_attention:
        attention = adapter.tower_layers.masked(number)
        hooks.append(attention.register_forward_pre_hook(before_attention, with_kwargs=True))
    return hooks


def patches_of(adapter: Any, n_patches: int) -> Tensor:
    """Return (visual, patches) of a square tile: the patches that become each visual token."""
    side = 1 if adapter.tower_layers.patches is None else int(1 / adapter.config.downsample_ratio)
    width = int(n_patches**0.5)
    own = [
        [(row + y) * width + column + x for y in range(side) for x in range(side)]
        for row in range(0, width, side)
        for column in range(0, width, side)
    ]
    return torch.tensor(own)

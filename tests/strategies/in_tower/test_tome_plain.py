"""ToMe in Qwen2-VL's tower against a plain re-implementation, token by token: units of 2 x 2 patches, rotary positions,
proportional attention."""

from __future__ import annotations

from math import ceil
from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close
from helpers.families import FAMILIES
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

import tokenprune
from tokenprune import ToMe

DEPTH, EACH = 5, 4


def deep_model() -> Any:
    family = FAMILIES["qwen2-vl"]
    config = family.config()
    config.vision_config.depth = DEPTH
    return type("Deep", (type(family),), {"config": lambda self: config})("qwen2-vl").build()


def plain(vision: Any, pixels: Tensor, grid: Tensor, target: int) -> tuple[Tensor, list[int]]:
    """Return the features of what is left of one image, and which visual tokens are left."""
    rotation: list[Any] = []
    hook = vision.blocks[0].register_forward_pre_hook(
        lambda module, args, kwargs: rotation.append(kwargs["position_embeddings"]), with_kwargs=True
    )
    vision(pixels, grid_thw=grid)
    hook.remove()
    cos, sin = (part.unflatten(0, (-1, EACH)) for part in rotation[0])
    hidden = vision.patch_embed(pixels).unflatten(0, (-1, EACH))  # unit, patch, width
    left, sizes = list(range(len(hidden))), [1] * len(hidden)
    for number, block in enumerate(vision.blocks):
        n_heads = block.attn.num_heads
        states = block.norm1(hidden.flatten(0, 1))
        queries, keys, values = block.attn.qkv(states).view(len(states), 3, n_heads, -1).unbind(1)
        angles = cos[left].flatten(0, 1), sin[left].flatten(0, 1)
        queries, keys = apply_rotary_pos_emb_vision(queries, keys, *angles)
        logits = torch.einsum("ihd,jhd->hij", queries, keys) * block.attn.scaling
        logits = logits + torch.tensor([size for size in sizes for _ in range(EACH)]).log()
        mixed = torch.einsum("hij,jhd->ihd", logits.softmax(-1), values).flatten(1)
        hidden = hidden + block.attn.proj(mixed).view(hidden.shape)
        hidden = hidden + block.mlp(block.norm2(hidden))
        n_later_layers = DEPTH - 2 - number
        if n_later_layers < 0:
            continue
        count = ceil((len(left) - target) / (n_later_layers + 1))
        of_unit = keys.mean(1).view(len(left), -1)
        pairs = []
        for looks in range(0, len(left), 2):
            found = [(float(cosine_similarity(of_unit[looks], of_unit[j], 0)), j) for j in range(1, len(left), 2)]
            best, partner = max(found)
            pairs.append((best, looks, partner))
        pairs.sort(reverse=True)
        sums = {i: (hidden[i] * sizes[i], sizes[i]) for i in range(len(left))}
        for _, looks, partner in pairs[:count]:
            (one, n_one), (other, n_other) = sums.pop(looks), sums[partner]
            sums[partner] = one + other, n_one + n_other
        hidden = torch.stack([total / size for total, size in sums.values()])
        left, sizes = [left[i] for i in sums], [size for _, size in sums.values()]
    return vision.merger(hidden.flatten(0, 1)), left


@pytest.mark.parametrize("keep", [9, 12])
def test_the_tower_merges_as_the_paper_does(keep: int) -> None:
    model = deep_model()
    inputs = FAMILIES["qwen2-vl"].prompt([1])
    with torch.no_grad():
        expected, left = plain(model.model.visual, inputs["pixel_values"], inputs["image_grid_thw"], keep)
        with tokenprune.patch(model, ToMe(keep=keep)) as handle:
            model(**inputs)
            (ours,) = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
    (image,) = handle.report.images
    assert image.kept.tolist() == left
    assert len(left) == keep
    assert sum(stage.merged is not None for stage in image.in_tower) == DEPTH - 1
    assert_close(ours[image.kept], expected)

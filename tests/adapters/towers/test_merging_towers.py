"""MiniCPM-V 4.6, whose tower merges patches between its layers, and where Llama 4 scales attention by place."""

from typing import Any

import pytest
import torch
from helpers.contract.encoded import model_of, softmaxes
from helpers.contract.shown import shown
from helpers.families import FAMILIES
from torch import Tensor, nn

import tokenprune
from tokenprune.adapters import adapter_for


def merged(core: Any, values: list[Tensor], grids: Tensor) -> Tensor:
    """Return a map over patches after the windows in the tower, and the squares after it."""
    windows = core.vision_tower.vit_merger.get_window_index(grids)[0]
    row = torch.cat(values, 1)[:, windows, None].unflatten(1, (-1, 4)).mean(2)
    mlp, core.merger.mlp = core.merger.mlp, nn.ModuleList([nn.Identity()])
    try:
        return torch.cat([tile.mean(-1) for tile in core.merger(row, grids // 2)])
    finally:
        core.merger.mlp = mlp


@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_attention_of_a_tower_that_merges_between_its_layers(layer: int | None) -> None:
    model, inputs = model_of("minicpmv4_6"), FAMILIES["minicpmv4_6"].prompt([1, 2])
    (point,) = adapter_for(model).capture_points(layer)
    with softmaxes(point.attention) as found:
        images = shown(model, inputs, layer)
    sums = [tile for image in images for tile in image.vision_attention.column_sums()]
    for tile, weights in zip(sums, (tile for call in found for tile in call), strict=True):
        torch.testing.assert_close(tile, weights.mean(0).sum(0), atol=1e-5, rtol=1e-4)
        assert tile.std() > 1e-3  # far from uniform
    values = [torch.rand_like(image.vision_attention.column_sums()) for image in images]
    carried = torch.cat([image.layout.to_tokens(value) for image, value in zip(images, values, strict=True)])
    if layer == 0:
        torch.testing.assert_close(carried, merged(model.model, values, inputs["target_sizes"]).detach())


def test_llama_4_is_not_pruned_where_it_scales_attention_by_place() -> None:
    inputs, model = FAMILIES["llama4"].prompt([1]), FAMILIES["llama4"].build()
    length = inputs["input_ids"].shape[1]
    with torch.no_grad(), tokenprune.patch(model, "random", keep_ratio=0.5) as handle:
        model.config.text_config.floor_scale = length + 1
        model(**inputs)
        assert handle.report.n_kept < handle.report.n_visual
        model.config.text_config.floor_scale = length
        with pytest.raises(tokenprune.PruningError, match=f"from {length} on"):
            model(**inputs)
        model.config.text_config.floor_scale = length + 3  # the answer becomes that long
        assert model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[1] == length + 3
        with pytest.raises(tokenprune.PruningError, match=f"from {length + 3} on"):
            model.generate(**inputs, max_new_tokens=4, do_sample=False)
        model.generate(**FAMILIES["llama4"].prompt([0]), max_new_tokens=40, do_sample=False)  # nothing was pruned

"""Vision towers whose patches are merged into visual tokens: strategies read the tower's own attention, and a map over
patches is merged like features in the model's own code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from helpers.contract.shown import shown
from helpers.families import FAMILIES
from torch import Tensor
from torch.nn import functional
from transformers.models.llama4.modeling_llama4 import pixel_shuffle

import tokenprune
from tokenprune.adapters import adapter_for

NAMES = [
    "kimi-k25",
    "minicpmv4_6",
    "minicpm-ocr",
    "lfm2-vl",
    "gemma4",
    "llama4",
    "molmo2",
    "cohere2-vision",
    "aya-vision",
]


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build("eager")


@contextmanager
def softmaxes(module: Any) -> Iterator[list[Tensor]]:
    """Yield a list of what every softmax returns within calls of a module."""
    found: list[Tensor] = []
    original = functional.softmax

    def recording(*args: Any, **kwargs: Any) -> Tensor:
        found.append(original(*args, **kwargs))
        return found[-1]

    def start(*_: Any) -> None:
        functional.softmax = recording  # type: ignore[assignment]

    def stop(*_: Any) -> None:
        functional.softmax = original

    hooks = [module.register_forward_pre_hook(start), module.register_forward_hook(stop)]
    try:
        yield found
    finally:
        stop()
        for hook in hooks:
            hook.remove()


def patches_of(name: str, weights: Tensor, inputs: dict[str, Any]) -> Tensor:
    """Return the attention (tiles, patches) that the patches of every tile receive from patches of the same tile."""
    real = torch.ones(len(weights), weights.shape[-1])
    if name == "llama4":
        real[:, -1] = 0  # the CLS token
    if name == "lfm2-vl":
        real = inputs["pixel_attention_mask"].float()
    if name == "gemma4":
        real = (inputs["image_position_ids"] >= 0).all(-1).float()
    sums = (weights.mean(1) * real[..., None]).sum(1)
    return sums[:, :-1] if name == "llama4" else sums


@pytest.mark.parametrize("layer", [None, 0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_attention_is_that_of_the_tower(name: str, layer: int | None) -> None:
    inputs = FAMILIES[name].prompt([1, 2])
    (point,) = adapter_for(model_of(name)).capture_points(layer)
    with softmaxes(point.attention) as found:
        images = shown(model_of(name), inputs, layer)
    expected = [tile for weights in found for tile in patches_of(name, weights, inputs)]
    sums = [tile for image in images for tile in image.vision_attention.column_sums()]
    assert len(sums) == len(expected)
    for tile, right in zip(sums, expected, strict=True):
        torch.testing.assert_close(tile, right, atol=1e-5, rtol=1e-4)
        assert right.std() > 1e-3  # far from uniform


def by_kimi(core: Any, values: list[Tensor], inputs: dict[str, Any]) -> Tensor:
    tower = core.vision_tower
    return tower.temporal_merge(torch.cat(values, 1).T, inputs["image_grid_thw"], *tower.merge_kernel_size).mean((1, 2))


def by_minicpm(core: Any, values: list[Tensor], inputs: dict[str, Any]) -> Tensor:
    """Merge values through the windows in the tower, if it merges there, and the squares after it."""
    row, grids = torch.cat(values, 1)[..., None], inputs["target_sizes"]
    if core.config.downsample_mode != "4x":
        windows = core.vision_tower.vit_merger.get_window_index(grids)[0]
        row, grids = row[:, windows].unflatten(1, (-1, 4)).mean(2), grids // 2
    merged, core.merger.mlp = core.merger.mlp, torch.nn.ModuleList([torch.nn.Identity()])
    try:
        return torch.cat([tile.mean(-1) for tile in core.merger(row, grids)])
    finally:
        core.merger.mlp = merged


def by_lfm2(core: Any, values: list[Tensor], inputs: dict[str, Any]) -> Tensor:
    width, seen = core.config.vision_config.hidden_size, []
    states = torch.cat(values)[..., None].expand(-1, -1, width)

    def replace(module: Any, args: Any, output: Any) -> None:
        output.last_hidden_state = states

    hooks = [
        core.vision_tower.register_forward_hook(replace),
        core.multi_modal_projector.layer_norm.register_forward_pre_hook(lambda module, args: seen.append(args[0])),
    ]
    names = ("pixel_values", "spatial_shapes", "pixel_attention_mask")
    lengths = [len(tile) for tile in core.get_image_features(**{n: inputs[n] for n in names}).pooler_output]
    for hook in hooks:
        hook.remove()
    slots = seen[0].mean(-1).reshape(len(lengths), -1)
    return torch.cat([tile[:length] for tile, length in zip(slots, lengths, strict=True)])


def by_gemma4(core: Any, values: list[Tensor], inputs: dict[str, Any]) -> Tensor:
    tower, places = core.vision_tower, inputs["image_position_ids"]
    padding, side = (places == -1).all(-1), tower.config.pooling_kernel_size
    pooled, real = tower.pooler(torch.cat(values)[..., None], places, padding, places.shape[1] // side**2)
    return pooled[real][:, 0] / tower.config.hidden_size**0.5


def by_llama4(core: Any, values: list[Tensor], inputs: dict[str, Any]) -> Tensor:
    return pixel_shuffle(torch.cat(values)[..., None], core.config.vision_config.pixel_shuffle_ratio).mean(-1).flatten()


def by_cohere(core: Any, values: list[Tensor], inputs: dict[str, Any]) -> Tensor:
    return core.multi_modal_projector.pixel_shuffle(torch.cat(values)[..., None]).mean(-1).flatten()


def by_molmo2(core: Any, values: list[Tensor], inputs: Any) -> Tensor:
    """The projector pools with a query that is the mean of what it pools."""
    seen: list[Tensor] = []
    projector, width = core.multi_modal_projector, 2 * core.config.vision_config.hidden_size
    hook = projector.image_pooling_2d.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    crops = torch.cat(values)[..., None].expand(-1, -1, width).split(inputs["image_num_crops"].tolist())
    for its, image in zip(crops, inputs.images, strict=True):
        projector(its, image["image_token_pooling"])
    hook.remove()
    return torch.cat(seen)[:, 0, 0]


MERGERS: dict[str, Callable[[Any, list[Tensor], dict[str, Any]], Tensor]] = {
    "kimi-k25": by_kimi,
    "minicpmv4_6": by_minicpm,
    "minicpm-ocr": by_minicpm,
    "lfm2-vl": by_lfm2,
    "gemma4": by_gemma4,
    "llama4": by_llama4,
    "molmo2": by_molmo2,
    "cohere2-vision": by_cohere,
    "aya-vision": by_cohere,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_map_is_carried_as_features_are_merged(name: str) -> None:
    inputs = FAMILIES[name].prompt([1, 2])
    images = shown(model_of(name), inputs, layer=0)
    core = getattr(model_of(name), "model", model_of(name))
    values = [torch.rand_like(image.vision_attention.column_sums()) for image in images]
    carried = torch.cat([image.layout.to_tokens(value) for image, value in zip(images, values, strict=True)])
    with torch.no_grad():
        torch.testing.assert_close(carried, MERGERS[name](core, values, inputs).float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "n_tiles"), [("llama4", [1, 3, 1]), ("cohere2-vision", [1, 3, 1])])
def test_tiles_make_images(name: str, n_tiles: list[int]) -> None:
    images = shown(model_of(name), FAMILIES[name].prompt([1, 2]))
    assert [image.layout.n_tiles for image in images] == n_tiles


def test_a_chunk_of_frames_is_averaged() -> None:
    """Kimi's tower sees all frames of a chunk at once."""
    inputs = FAMILIES["kimi-k25"].prompt([0], videos_per_row=[2])
    images = shown(model_of("kimi-k25"), inputs)
    core, values = model_of("kimi-k25").model, [torch.rand(1, 4 * 8 * 6), torch.rand(1, 2 * 6 * 6)]
    carried = torch.cat([image.layout.to_tokens(value) for image, value in zip(images, values, strict=True)])
    grids = {"image_grid_thw": inputs["video_grid_thw"]}
    torch.testing.assert_close(carried, by_kimi(core, values, grids))


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

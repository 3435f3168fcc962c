"""The vision tower of Qwen-VL: windows, merge blocks, and statistics frame by frame."""

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers.families import FAMILIES
from torch import Tensor
from transformers import Qwen2VLImageProcessor

import tokenprune
from tokenprune import FoPru, Grid, UnsupportedError
from tokenprune.adapters import adapter_for
from tokenprune.adapters.towers.qwen import frame_pixels

NAMES = ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"]


@cache
def model_of(name: str) -> Any:
    return FAMILIES[name].build()


def maps_in_row_order(model: Any, inputs: dict[str, Tensor], layer: int) -> tuple[list[Tensor], Tensor]:
    """Return the attention maps of one layer, (heads, patches, patches) per frame in the order of the tower's row,
    computed from the inputs of its attention, and the visual token that each four patches of the row become."""
    seen: dict[str, Any] = {}
    tower = model.model.visual
    attention = tower.blocks[layer].attn

    def see_call(module: Any, args: Any, kwargs: Any) -> None:
        seen.update(kwargs, hidden_states=args[0])

    hooks = [
        attention.register_forward_pre_hook(see_call, with_kwargs=True),
        tower.merger.register_forward_hook(lambda module, args, output: seen.update(merged=output)),
    ]
    with torch.no_grad():
        features = tower(inputs["pixel_values"], grid_thw=inputs["grid_thw"]).pooler_output
    for hook in hooks:
        hook.remove()
    n_patches = len(seen["hidden_states"])
    q, k, _ = attention.qkv(seen["hidden_states"]).view(n_patches, 3, 4, 8).permute(1, 2, 0, 3).detach()
    cos, sin = seen["position_embeddings"]
    q, k = (x * cos + torch.cat([-x[..., 4:], x[..., :4]], -1) * sin for x in (q, k))
    borders = seen["cu_seqlens"].tolist()
    maps = [(q[:, a:b] @ k[:, a:b].mT * 8**-0.5).softmax(-1) for a, b in pairwise(borders)]
    order = (seen["merged"][:, None] - features).abs().amax(-1).argmin(1)
    assert order.unique().numel() == len(order)
    return maps, order


def scores_of(model: Any, inputs: dict[str, Any], **settings: Any) -> tuple[list[Tensor], list[Any]]:
    with torch.no_grad(), tokenprune.patch(model, FoPru(**settings)) as handle:
        model(**inputs)
    return [image.scores for image in handle.report.images if image.scores is not None], handle.report.images


@pytest.mark.parametrize("heads", ["mean", "max"])
@pytest.mark.parametrize(
    ("name", "layer", "read"),
    [("qwen2-vl", None, 2), ("qwen2-vl", 0, 0), ("qwen2.5-vl", None, 1), ("qwen2.5-vl", -2, 1), ("qwen3-vl", None, 2)],
)
def test_column_sums_are_those_of_the_attention_maps(name: str, layer: int | None, read: int, heads: Any) -> None:
    """Images of several sizes, one of which does not fill its windows, and videos, frame by frame."""
    family, model = FAMILIES[name], model_of(name)
    inputs = family.prompt([2, 1], videos_per_row=[0, 2])
    assert len(inputs["image_grid_thw"].unique(dim=0)) == 3
    found, images = scores_of(model, inputs, layer=layer, heads=heads)
    for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        grids = inputs[f"{kind}_grid_thw"]
        maps, order = maps_in_row_order(model, {"pixel_values": inputs[pixels], "grid_thw": grids}, read)
        assert [m.shape[-1] for m in maps] == [h * w for t, h, w in grids.tolist() for _ in range(t)]
        received = torch.cat([(m.mean(0) if heads == "mean" else m.amax(0)).sum(0) for m in maps])
        expected = torch.zeros(len(order))
        expected[order] = received.view(-1, 4).mean(1)
        scores = torch.cat([s for s, image in zip(found, images, strict=True) if image.modality == kind])
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
        assert expected.std() > 0.02  # far above the tolerance, so a wrong row or layer would show


def block_order(t: int, h: int, w: int) -> list[tuple[int, int, int]]:
    """Return frame, row and column of one image's patches, in the order in which processors write them."""
    return [
        (frame, 2 * row + y, 2 * column + x)
        for frame in range(t)
        for row in range(h // 2)
        for column in range(w // 2)
        for y in range(2)
        for x in range(2)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_statistics_come_in_raster_order(name: str) -> None:
    """Checked with queries that encode the place of their patch."""
    model = model_of(name)
    adapter = adapter_for(model)
    grids = torch.tensor([[1, 6, 10], [3, 4, 6]])
    places = torch.tensor([place for grid in grids.tolist() for place in block_order(*grid)]).float()
    qkv = torch.zeros(len(places), 96)
    qkv[:, :3] = qkv[:, 32:35] = places
    tokens = torch.arange(len(places) // 4)
    if name == "qwen2.5-vl":  # windows of 2 x 2 visual tokens, cut off at the edges
        firsts = places.view(-1, 4, 3)[:, 0] // torch.tensor([1, 4, 4])
        image = (tokens >= 15).float() * 100
        tokens = (((image + firsts[:, 0]) * 100 + firsts[:, 1]) * 100 + firsts[:, 2]).argsort(stable=True)
    qkv = qkv.view(-1, 4, 96)[tokens].flatten(0, 1)
    turn = (torch.ones(len(places), 8), torch.zeros(len(places), 8))
    call = {"qkv": qkv, "attention": {"position_embeddings": turn}, "tower": {"grid_thw": grids}}
    queries, keys = adapter.tile_heads(call)
    assert [tuple(q.shape) for q in queries] == [(4, 60, 8)] + [(4, 24, 8)] * 3
    wanted = [(frame, h, w) for t, h, w in grids.tolist() for frame in range(t)]
    for q, k, (frame, h, w) in zip(queries, keys, wanted, strict=True):
        expected = torch.cartesian_prod(torch.tensor([frame]), torch.arange(h), torch.arange(w)).float()
        assert torch.equal(q[0, :, :3], expected)
        assert torch.equal(k[0, :, :3], expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_map_is_carried_as_the_merger_carries_patches(name: str) -> None:
    family, model = FAMILIES[name], model_of(name)
    inputs = family.prompt([1], videos_per_row=[1], sizes=[(24, 40)])
    with torch.no_grad(), tokenprune.patch(model, Grid(keep_ratio=0.5)) as handle:
        model(**inputs)
    still, video = (image.layout for image in handle.report.images)
    assert (still.grid, still.n_tiles, still.tiles) == ((1, 3, 5), 1, None)
    assert (video.grid, video.n_tiles) == ((2, 4, 3), 2)
    assert video.tiles is not None
    assert video.tiles.tolist() == [0] * 12 + [1] * 12
    for layout in (still, video):
        t, h, w = layout.grid
        places = torch.cartesian_prod(torch.arange(t), torch.arange(2 * h), torch.arange(2 * w)).float()
        for axis, scale, offset in ((0, 1, 0), (1, 2, 0.5), (2, 2, 0.5)):
            carried = layout.to_tokens(places[:, axis].view(t, -1))
            assert torch.equal(carried, torch.cartesian_prod(*map(torch.arange, (t, h, w)))[:, axis] * scale + offset)


@pytest.mark.parametrize("layer", [0, 2, -1])
def test_layers_that_see_windows_only_are_refused(layer: int) -> None:
    with pytest.raises(UnsupportedError, match=rf"layer={layer} .* within small windows.*layer=None .* one of 1\."):
        tokenprune.patch(model_of("qwen2.5-vl"), FoPru(layer=layer))
    with pytest.raises(UnsupportedError, match="layer=3 is not in the vision tower"):
        tokenprune.patch(model_of("qwen2.5-vl"), FoPru(layer=3))


def test_there_is_no_cls_token() -> None:
    with pytest.raises(UnsupportedError, match="needs a CLS token"):
        tokenprune.patch(model_of("qwen3-vl"), FoPru(score="cls"))


def test_pixels_are_the_image_that_the_processor_cut_up() -> None:
    colors = np.random.default_rng(0).integers(0, 255, (84, 112, 3), dtype=np.uint8)
    given: Any = Qwen2VLImageProcessor(min_pixels=28 * 28)(images=[colors], return_tensors="pt")  # pyright: ignore[reportCallIssue]
    adapter = adapter_for(model_of("qwen2.5-vl"))
    config = adapter.vision_tower.config
    (image,) = frame_pixels(
        {"hidden_states": given["pixel_values"], "grid_thw": given["image_grid_thw"]}, type(config)(patch_size=14)
    )
    expected = torch.from_numpy(colors).permute(2, 0, 1) / 255
    torch.testing.assert_close(adapter.tower.colors(image[None])[0], expected, atol=1e-5, rtol=0)


def test_a_tower_without_full_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("qwen2.5-vl")
    monkeypatch.setattr(model.model.visual.config, "fullatt_block_indexes", [])
    for layer in (None, 1):
        with pytest.raises(UnsupportedError, match=r"no layer .* each of its 3 layers .* small windows.* such as Grid"):
            tokenprune.patch(model, FoPru(layer=layer))
    tokenprune.patch(model, Grid()).remove()
    monkeypatch.setattr(model.model.visual.config, "fullatt_block_indexes", [31])  # as in a config for another depth
    with pytest.raises(UnsupportedError, match=r"no layer of this vision tower"):
        tokenprune.patch(model, FoPru())

"""Layouts of images with tiles, newline tokens and frames, compared with hand-made ones and with the features."""

import pickle
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close, dropped_columns
from helpers.families import FAMILIES
from helpers.families.base import tower
from helpers.families.llava import VIDEO_LLAVA_PIXELS
from helpers.models.tiled import IMAGES, VIDEOS, inputs_of, model_of, reported
from torch.nn.functional import interpolate
from transformers import SiglipVisionConfig
from transformers.models.llava_next_video.modeling_llava_next_video import LlavaNextVideoPooler

import tokenprune
from tokenprune import FoPru, UnsupportedError
from tokenprune.adapters import adapter_for
from tokenprune.adapters.families.llava_next import pool
from tokenprune.adapters.layouts.anyres import anyres_layout
from tokenprune.adapters.layouts.frames import frames_layout
from tokenprune.adapters.layouts.newlines import ended_by_newline
from tokenprune.tokens import Layout


def anyres(name: str, height: int, width: int) -> Layout:
    """Return the family's layout of an image of this size that is alone in its row."""
    inputs = FAMILIES[name].prompt([1], sizes=[(height, width)])
    (image,) = reported(name, inputs, FoPru())
    return image.layout


# By hand: two tiles of 2 x 2 patches side by side, whose canvas is cut to its second row.


def one_row(values: torch.Tensor, newline: float) -> torch.Tensor:
    overview, left, right = values
    return torch.cat([overview, left[2:], right[2:], torch.tensor([newline])])


def test_anyres_by_hand() -> None:
    layout = anyres_layout(one_row, rows=1, columns=2, side=2)
    assert layout.grids == ((1, 2, 2), (1, 1, 5))
    assert layout.n_tiles == 3
    assert layout.tiles is not None
    assert layout.newlines is not None
    assert layout.tiles.tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert layout.newlines.nonzero().tolist() == [[8]]
    values = torch.tensor([[1.0, 2, 3, 4], [50, 60, 7, 6], [70, 80, 9, 8]])
    assert layout.to_tokens(values).tolist() == [1, 2, 3, 4, 7, 6, 9, 8, 9]
    index, part = layout.of_tile(2)
    assert index.tolist() == [6, 7, 8]
    assert part.grids == ((1, 1, 3),)
    assert part.newlines is not None
    assert part.newlines.tolist() == [False, False, True]
    assert part.to_tokens(values).tolist() == [9, 8, 9]


def test_what_is_not_a_number_stays_so_in_its_newline() -> None:
    layout = anyres_layout(one_row, rows=1, columns=2, side=2)
    carried = layout.to_tokens(torch.tensor([[1.0, 2, 3, 4], [5, 6, torch.nan, 8], [1, 2, 3, 4]]))
    assert carried.isnan().nonzero()[:, 0].tolist() == [4, 8]


def one_resized_row(values: torch.Tensor, newline: float) -> torch.Tensor:
    overview, left, right = values
    row = interpolate(torch.cat([left[2:], right[2:]])[None, None], 3, mode="linear")[0, 0]
    return torch.cat([overview, row, torch.tensor([newline])])


def test_the_tile_of_a_resized_token_is_where_its_middle_is() -> None:
    """Four columns become three, whose middles are at 2/3, 2 and 10/3; the border between the tiles is at 2."""
    layout = anyres_layout(one_resized_row, rows=1, columns=2, side=2)
    assert layout.tiles is not None
    assert layout.tiles[4:].tolist() == [1, 2, 2, 2]


def test_frames_by_hand() -> None:
    layout = ended_by_newline(frames_layout(2, 1, 2))
    assert layout.grids == ((2, 1, 2), (1, 1, 1))
    assert layout.tiles is not None
    assert layout.newlines is not None
    assert layout.tiles.tolist() == [0, 0, 1, 1, 1]
    assert layout.newlines.tolist() == [False] * 4 + [True]
    assert layout.to_tokens(torch.tensor([[5.0, 1], [2, 3]])).tolist() == [5, 1, 2, 3, 5]
    index, part = layout.of_tile(1)  # in two rasters
    assert index.tolist() == [2, 3, 4]
    assert part.grids == ((1, 1, 2), (1, 1, 1))
    assert frames_layout(1, 3, 3).tiles is None


def test_tiles_that_form_no_rectangle() -> None:
    layout = Layout(((1, 2, 2),), 2, tiles=torch.tensor([0, 0, 0, 1]))
    with pytest.raises(AssertionError, match="must form rectangles"):
        layout.of_tile(0)


# The families.


def test_padding_is_cut_off_rows() -> None:
    """16 x 24 pixels on 2 x 2 tiles of 3 x 3 patches: one row of the canvas is padding above, and one below."""
    layout = anyres("llava-next", 16, 24)
    assert layout.grids == ((1, 3, 3), (1, 4, 7))
    assert layout.tiles is not None
    assert layout.tiles[9:].view(4, 7).tolist() == [[1] * 3 + [2] * 4] * 2 + [[3] * 3 + [4] * 4] * 2
    place = torch.arange(5)[:, None] * 100 + torch.arange(9.0)
    canvas = layout.to_tokens(place)[9:].view(4, 7)
    assert canvas[0].tolist() == [103, 104, 105, 203, 204, 205, 205]
    assert canvas[3].tolist() == [303, 304, 305, 403, 404, 405, 405]
    assert layout.to_tokens(place)[:9].tolist() == list(range(9))


def test_padding_is_cut_off_columns() -> None:
    layout = anyres("llava-next", 30, 16)
    assert layout.grids == ((1, 3, 3), (1, 6, 5))
    assert layout.tiles is not None
    assert layout.tiles[9:].view(6, 5).tolist() == [[1, 1, 2, 2, 2]] * 3 + [[3, 3, 4, 4, 4]] * 3


def test_many_tiles_are_resized() -> None:
    """6 x 6 patches become 4 x 4 tokens, which lie at 0.25, 1.75, 3.25 and 4.75."""
    layout = anyres("llava-onevision", 24, 24)
    assert layout.grids == ((1, 3, 3), (1, 4, 5))
    columns = torch.arange(3.0).repeat(3)
    carried = layout.to_tokens(torch.stack([columns, columns, columns + 3, columns, columns + 3]))[9:].view(4, 5)
    assert carried.tolist() == [[0.25, 1.75, 3.25, 4.75, 4.75]] * 4
    assert layout.tiles is not None
    assert layout.tiles[9:].view(4, 5).tolist() == [[1, 1, 2, 2, 2]] * 2 + [[3, 3, 4, 4, 4]] * 2


def test_images_among_others_are_one_tile() -> None:
    alone, *others = reported("llava-onevision", FAMILIES["llava-onevision"].prompt([1, 2]), FoPru())
    assert alone.layout.n_tiles == 5
    for image in others:
        assert image.grids == ((1, 3, 3), (1, 1, 1))
        assert (image.layout.n_tiles, image.layout.tiles) == (1, None)


def test_frames_of_video_llava_keep_their_cls_token() -> None:
    image, *_ = reported("video-llava", inputs_of("video-llava", video=True), FoPru())
    assert image.grids == ((1, 1, 1), (1, 4, 4)) * 2
    values = torch.arange(32.0).view(2, 16)
    assert "2 x (1x1 + 4x4) grid" in repr(image)
    carried = image.layout.to_tokens(values).view(2, 17)
    assert carried[:, 0].tolist() == [15, 31]  # a CLS token stands for its frame
    assert torch.equal(carried[:, 1:], values)


@pytest.mark.parametrize("size", [(100, 1), (1, 100)])
def test_images_that_are_nearly_a_line(size: tuple[int, int]) -> None:
    """transformers cuts off everything except newline tokens, or even those."""
    family, model = FAMILIES["llava-next-video"], model_of("llava-next-video")
    inputs = family.prompt([1], sizes=[size])
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=0.5, budget_per="tile")) as handle:
        logits = model(**inputs).logits[:, -1]
    (image,) = handle.report.images
    assert image.grids == (((1, 4, 4), (1, 4, 1)) if size == (100, 1) else ((1, 4, 4),))
    assert image.n_kept == image.n_visual // 2
    oracle = family.oracle(model, inputs, dropped_columns(inputs["input_ids"], [handle.report]))
    assert_close(logits, oracle[:, -1])
    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=1.0, mass=0.9)) as handle:
        model(**inputs)  # raises unless newline tokens too have scores of at least 0
    assert handle.report.n_kept < handle.report.n_visual


@pytest.mark.parametrize(("name", "video"), IMAGES + VIDEOS)
def test_maps_are_carried_as_features_are(name: str, video: bool) -> None:
    """Every channel of the projected patches, carried as a map, is that channel of the visual tokens."""
    model, inputs, projected = model_of(name), inputs_of(name, video), []
    pooled_first = name == "llava-next-video" and video  # and projected afterwards
    shown = model.model.vision_resampler if pooled_first else model.model.multi_modal_projector

    def keep(module: Any, args: Any, output: torch.Tensor) -> None:
        projected.append(args[0] if pooled_first else output)

    with torch.no_grad(), tokenprune.patch(model, FoPru(keep_ratio=1.0)) as handle:
        features = visual_features(model, inputs, keep, shown)
    (patches,) = projected
    if name == "video-llava" and video:
        patches = patches[:, 1:]
    start = 0
    for image in handle.report.images:
        stop = start + image.layout.n_tiles
        channels = [image.layout.to_tokens(channel) for channel in patches[start:stop].unbind(-1)]
        carried = torch.stack(channels, -1)
        if pooled_first:
            carried = model.model.multi_modal_projector(carried)
        own = features[: image.n_visual]
        features, start = features[image.n_visual :], stop
        stands_in = image.layout.newlines
        if name == "video-llava":
            stands_in = torch.tensor([h * w == 1 for _, h, w in image.grids for _ in range(h * w)])
        elif stands_in is not None:
            assert torch.equal(own[stands_in], model.model.image_newline.expand(int(stands_in.sum()), -1))
        real = torch.ones(len(own), dtype=torch.bool) if stands_in is None else ~stands_in
        torch.testing.assert_close(carried[real], own[real], atol=1e-6, rtol=1e-6)
    assert (start, len(features)) == (len(patches), 0)


def visual_features(model: Any, inputs: dict[str, Any], keep: Callable[..., None], shown: Any) -> torch.Tensor:
    """Return the features (visual, width) that a call puts at the placeholders, with `keep` as a hook on `shown`."""
    given = []
    hooks = [
        shown.register_forward_hook(keep),
        model.model.language_model.register_forward_pre_hook(
            lambda module, args, kwargs: given.append(kwargs["inputs_embeds"]), with_kwargs=True
        ),
    ]
    model(**inputs)
    for hook in hooks:
        hook.remove()
    family = next(family for family in FAMILIES.values() if family.class_name == type(model).__name__)
    return given[0][family.visual(inputs["input_ids"])]


@pytest.mark.parametrize("name", ["llava-next", "llava-onevision", "llava-next-video"])
def test_tiles_of_images_of_any_size(name: str) -> None:
    """Each tile is a rectangle in its rasters, and together they cover the image."""
    adapter: Any = adapter_for(model_of(name))
    settings = {"vision_aspect_ratio": "anyres_max_2"} if name == "llava-onevision" else {}
    settings = settings or {"vision_feature_select_strategy": "default"}
    for height in range(1, 90, 11):
        for width in range(1, 90, 8):
            layout = adapter.anyres(torch.tensor([height, width]), **settings)
            parts = [layout.of_tile(tile) for tile in layout.tiles.unique().tolist()]
            indices = torch.cat([index for index, _ in parts])
            assert indices.sort().values.tolist() == list(range(layout.n_visual))
            ramp = torch.arange(layout.n_tiles).float()[:, None].expand(-1, adapter.side**2)
            whole = layout.to_tokens(ramp)
            for index, part in parts:
                assert torch.equal(part.to_tokens(ramp), whole[index])


@pytest.mark.parametrize(("name", "match"), [("vip-llava", "drops the first token"), ("video-llava", "no CLS")])
def test_towers_without_cls_are_refused(name: str, match: str) -> None:
    config = FAMILIES[name].config()
    config.vision_config = SiglipVisionConfig(**tower(24))
    model = type(model_of(name))(config)
    model.config.vision_feature_select_strategy = "full"
    with pytest.raises(UnsupportedError, match=rf"{match}.*Load a model with a CLIP tower"):
        tokenprune.patch(model, FoPru())


@pytest.mark.parametrize("mode", ["average", "max", "conv"])
def test_poolers(mode: str) -> None:
    """Maps are pooled as the model pools one channel of features, or by the mean if it mixes channels."""
    config = FAMILIES["llava-next-video"].config()
    config.spatial_pool_mode = "average" if mode == "conv" else mode
    values, pooler = torch.randn(2, 16), LlavaNextVideoPooler(config)
    assert torch.equal(pool(values, mode, stride=2, side=4), pooler(values[..., None]).flatten())


@pytest.mark.parametrize(("name", "video"), IMAGES + VIDEOS)
def test_a_report_can_go_elsewhere(name: str, video: bool) -> None:
    """It can be pickled without the model's weights, and keeps everything that its layout knows."""
    images = reported(name, inputs_of(name, video), FoPru())
    stored = pickle.dumps(images)
    assert len(stored) < 20_000
    for image, copied in zip(images, pickle.loads(stored), strict=True):
        values = torch.randn(image.layout.n_tiles, 16 if name in ("llava-next-video", "video-llava") else 9)
        assert torch.equal(copied.layout.to_tokens(values), image.layout.to_tokens(values))


@pytest.mark.parametrize("pixels", ["pixel_values", "pixel_values_images"])
def test_both_names_of_the_images_of_video_llava(pixels: str) -> None:
    """The processor uses the older name; transformers up to 5.1x knows only that one."""
    model, inputs = model_of("video-llava"), FAMILIES["video-llava"].prompt([1])
    if pixels not in signature(model.model.forward).parameters and VIDEO_LLAVA_PIXELS != "pixel_values":
        return
    inputs[pixels] = inputs.pop(VIDEO_LLAVA_PIXELS)
    for call in (model, model.model, partial(model.generate, max_new_tokens=2)):
        with torch.no_grad(), tokenprune.patch(model, FoPru()) as handle:
            call(**inputs)
        assert handle.report.n_kept == 4

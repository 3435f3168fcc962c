"""Vision towers that take the patches of all images in one row: what a row says of them, grids and pixels."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.contract.encoded import encoded, family_of, inputs_of, model_of, patches_of_tokens
from helpers.families import COMPACT_ONLY, FAMILIES
from helpers.families.qwen_vl import PackedImages

import tokenprune
from tokenprune import FoPru, Grid, UnsupportedError
from tokenprune.adapters import adapter_for

CASES = [
    (name, kind)
    for name, family in {**FAMILIES, **COMPACT_ONLY}.items()
    for kind in ("image", "video")
    if isinstance(family, PackedImages) and (kind == "image" or family.video_sizes)
    if (name, kind) != ("kimi-k25", "video")  # whose frames are averaged
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_rows_say_what_each_patch_belongs_to(name: str, kind: str) -> None:
    """Both in the order of the layers, as known from the model itself, and in the order of tiles, which is raster
    order."""
    model, inputs = model_of(name), inputs_of(name, kind)
    adapter = adapter_for(model)
    if adapter.tower.row is None:
        pytest.skip("refused: its patches are not dropped before the tower")
    grids = inputs[f"{kind}_grid_thw"]
    row = adapter.tower.row.describe(grids, adapter.vision_tower.config)
    of_token, patches = patches_of_tokens(adapter, inputs, kind), row.in_layers >= 0
    assert torch.equal(row.in_layers[patches], of_token.int().argmax(0)[patches])
    assert torch.equal(of_token.sum(0) == 1, patches)
    first, expected = 0, []
    for t, h, w in grids.tolist():
        for _ in range(t):
            frame = torch.arange(first, first + h * w // 4).view(h // 2, w // 2)
            expected.append(frame.repeat_interleave(2, 0).repeat_interleave(2, 1).flatten())
            first += h * w // 4
    raster = torch.arange(first) if row.places is None else row.places
    assert torch.equal(raster[row.in_tiles], torch.cat(expected))
    chunks = name == "minimax-m3"  # its frames are one tile
    assert list(row.tiles) == (grids.prod(1).tolist() if chunks else [len(frame) for frame in expected])


def test_tokens_that_are_no_patches_get_the_highest_score() -> None:
    """HunyuanOCR has one before the image, one after every row, and one after the image."""
    model = model_of("hunyuan-vl")
    with torch.no_grad(), tokenprune.patch(model, FoPru()) as handle:
        model(**FAMILIES["hunyuan-vl"].prompt([1], sizes=[(24, 40)]))
    (image,) = handle.report.images
    assert image.layout.grids == ((1, 1, 1), (1, 3, 6), (1, 1, 1))
    assert image.scores is not None
    rows = image.scores[1:-1].view(3, 6)
    assert torch.equal(rows[:, -1], rows[:, :-1].amax(1))
    assert torch.equal(image.scores[[0, -1]], rows.amax().expand(2))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_grids_are_those_of_the_visual_tokens(name: str, kind: str) -> None:
    """A visual token's patches are those of its cell."""
    model, ids = model_of(name), "compact" if name in COMPACT_ONLY else "original"
    with torch.no_grad(), tokenprune.patch(model, Grid(keep_ratio=0.5), position_ids=ids) as handle:
        model(**inputs_of(name, kind))
    images = handle.report.images
    sizes = family_of(name).sizes if kind == "image" else family_of(name).video_sizes
    if len(images[0].layout.grids) > 3:
        pytest.skip("windows: see tests/adapters/families/test_ovis2_5.py")
    side = 4 if name == "video-llama-3" and kind == "image" else 8  # pixels per side of a visual token
    for image, size in zip(images, sizes, strict=False):
        *_, (t, h, w) = [grid for grid in image.layout.grids if grid != (1, 1, 1)]
        *frames, height, width = size
        assert (h, w - (name in ("hunyuan-vl", "hy-v4-vl"))) == (height // side, width // side)
        n_tiles = 1 if image.layout.tiles is None else len(image.layout.tiles.unique())
        assert n_tiles == (1 if name == "minimax-m3" else t)  # it sees all frames of a chunk at once
        assert image.modality == kind
        assert not frames or t in (frames[0], frames[0] // 2)


PROCESSORS = {
    "glm4v": "Glm4vImageProcessor",
    "glm4.6v": "Glm46VImageProcessor",
    "glm-ocr": "Glm46VImageProcessor",
    "glm5-next": "Glm5NextImageProcessor",
    "paddleocr-vl": "PaddleOCRVLImageProcessor",
    "hunyuan-vl": "HunYuanVLImageProcessor",
    "video-llama-3": "VideoLlama3ImageProcessor",
    "ernie4.5-vl": "Ernie4_5_VLMoeImageProcessor",
    "qwen2.5-omni": "Qwen2VLImageProcessor",
    "qwen2.5-vl": "Qwen2VLImageProcessor",
    "hyperclovax": "Qwen2VLImageProcessor",
    "llava-onevision1.5": "Qwen2VLImageProcessor",
    "ovis2.5": "Ovis2_5ImageProcessor",
    "muse-glimmer": "MuseGlimmerImageProcessor",
    "minimax-m3": "MiniMaxM3VLImageProcessor",
}


@pytest.mark.parametrize("name", [name for name in PROCESSORS if name in {**FAMILIES, **COMPACT_ONLY}])
def test_pixels_are_the_image_that_the_processor_cut_up(name: str) -> None:
    colors = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    adapter = adapter_for(model_of(name))
    processor = getattr(transformers, PROCESSORS[name])
    frames = {"temporal_patch_size": 1} if name == "llava-onevision1.5" else {}
    given = processor(patch_size=4, **frames)(images=[colors], do_resize=False, return_tensors="pt")
    calls: list[Any] = []
    hook = adapter.vision_tower.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    with torch.no_grad():
        encoded(adapter, dict(given), "image")
    hook.remove()
    ((args, kwargs),) = calls
    names = list(inspect.signature(type(adapter.vision_tower).forward).parameters)[1:]
    (image,) = adapter.tile_pixels({**dict(zip(names, args, strict=False)), **kwargs})
    expected = torch.from_numpy(colors).permute(2, 0, 1) / 255
    torch.testing.assert_close(adapter.tower.colors(image[None])[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("qwen2.5-vl", "attends within small windows"),
        ("lfm3-vl", "has a convolution in place of attention"),
        ("muse-glimmer", "attends within small windows"),
        ("muse-spark", "attends within small windows"),
        ("ovis2.5", "attends within small windows"),
    ],
)
def test_layers_that_do_not_compare_all_patches_are_refused(name: str, what: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"layer=0 of this vision tower {what}.*layer=None .* one of \d"):
        tokenprune.patch(model_of(name), FoPru(layer=0))


# Qwen-VL's.


@pytest.mark.parametrize("layer", [0, 2, -1])
def test_layers_that_see_windows_only_are_refused(layer: int) -> None:
    with pytest.raises(UnsupportedError, match=rf"layer={layer} .* within small windows.*layer=None .* one of 1\."):
        tokenprune.patch(model_of("qwen2.5-vl"), FoPru(layer=layer))
    with pytest.raises(UnsupportedError, match="layer=3 is not in the vision tower"):
        tokenprune.patch(model_of("qwen2.5-vl"), FoPru(layer=3))


def test_there_is_no_cls_token() -> None:
    with pytest.raises(UnsupportedError, match="needs a CLS token"):
        tokenprune.patch(model_of("qwen3-vl"), FoPru(score="cls"))


def test_a_tower_without_full_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FAMILIES["qwen2.5-vl"].build()
    monkeypatch.setattr(model.model.visual.config, "fullatt_block_indexes", [])
    for layer in (None, 1):
        with pytest.raises(UnsupportedError, match=r"no layer .* each of its 3 layers .* small windows.* such as Grid"):
            tokenprune.patch(model, FoPru(layer=layer))
    tokenprune.patch(model, Grid()).remove()
    monkeypatch.setattr(model.model.visual.config, "fullatt_block_indexes", [31])  # as in a config for another depth
    with pytest.raises(UnsupportedError, match=r"no layer of this vision tower"):
        tokenprune.patch(model, FoPru())

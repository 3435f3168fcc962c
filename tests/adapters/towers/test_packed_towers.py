"""Vision towers that take the patches of all images in one row: their attention, and what visual tokens are made of.

Expected values come from the model itself: the weights of its eager attention, and the patches on which each visual
token depends after the last encoder layer.
"""

import inspect
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.families import COMPACT_ONLY, FAMILIES, Family, present
from torch import Tensor

import tokenprune
from tokenprune import FoPru, Grid, UnsupportedError
from tokenprune.adapters import adapter_for

NAMES = present(
    "cosmos3-edge",
    "cosmos3-omni",
    "dots3-note",
    "ernie4.5-vl",
    "exaone4.5",
    "glm-ocr",
    "glm4.6v",
    "glm4v",
    "glm4v-moe",
    "glm5-next",
    "hunyuan-vl",
    "hy-v4-vl",
    "hyperclovax",
    "lfm3-vl",
    "llava-onevision1.5",
    "muse-glimmer",
    "muse-spark",
    "ovis2.5",
    "paddleocr-vl",
    "qwen2.5-omni",
    "qwen3-omni",
    "qwen3-vl-moe",
    "qwen3.5",
    "qwen3.5-moe",
    "qwen4-exp",
    "video-llama-3",
)


def family_of(name: str) -> Family:
    """Return a family, or skip the test if this transformers lacks it."""
    return COMPACT_ONLY[name] if name in COMPACT_ONLY else FAMILIES[name]


CASES = [
    (name, kind)
    for name in (*NAMES, *COMPACT_ONLY)
    for kind in ("image", "video")
    if kind == "image" or family_of(name).video_sizes
]


@cache
def model_of(name: str) -> Any:
    return family_of(name).build("eager")


def images_of(name: str, inputs: dict[str, Any], strategy: tokenprune.Strategy) -> list[tokenprune.ImageReport]:
    ids: Any = "compact" if name in COMPACT_ONLY else "original"
    with torch.no_grad(), tokenprune.patch(model_of(name), strategy, position_ids=ids) as handle:
        model_of(name)(**inputs)
    return handle.report.images


def inputs_of(name: str, kind: str) -> dict[str, Any]:
    """Return images of different sizes or two videos, with more of them in one row of the batch than in the other."""
    family = family_of(name)
    if name in COMPACT_ONLY:  # no padding
        return family.prompt([2]) if kind == "image" else family.prompt([0], videos_per_row=[2])
    return family.prompt([2, 1]) if kind == "image" else family.prompt([0, 0], videos_per_row=[1, 1])


def encoded(model: Any, inputs: dict[str, Any], kind: str) -> Tensor:
    """Return the features of all visual tokens of a kind."""
    encode = getattr(model.model, f"get_{kind}_features")
    taken = inspect.signature(encode).parameters
    output = encode(**{name: value for name, value in inputs.items() if name in taken}).pooler_output
    return torch.cat([image.reshape(-1, image.shape[-1]) for image in output])


def received(
    model: Any, inputs: dict[str, Any], kind: str, layer: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, int]:
    """Return the attention that each patch of the row receives from patches in one encoder layer, averaged over heads,
    and the number of frames."""
    adapter, maps = adapter_for(model), []
    patches = slice(adapter.tower.n_prefix, None)
    attention = adapter.tower.capture_points(adapter.tower.layers(adapter.vision_tower)[layer]).attention
    code = sys.modules[type(attention).__module__]
    compute = vars(code)["eager_attention_forward"]

    def watched(module: Any, *args: Any, **kwargs: Any) -> Any:
        output, weights = compute(module, *args, **kwargs)
        if module is attention:
            maps.append(weights[0])
        return output, weights

    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(code, "eager_attention_forward", watched)
        encoded(model, inputs, kind)
    assert all(torch.allclose(weights.sum(-1), torch.ones(())) for weights in maps)
    return torch.cat([weights.mean(0)[patches].sum(0) for weights in maps]), len(maps)


def patches_of_tokens(model: Any, inputs: dict[str, Any], kind: str) -> Tensor:
    """Return (tokens, patches) bool: of which patches in the row each visual token is made after the last layer."""
    adapter, rows = adapter_for(model), []

    def restart(module: Any, args: Any, output: Tensor) -> Tensor:
        rows.append(output.detach().requires_grad_())
        return rows[-1]

    # Before transformers' own hook, which gives the projector of some models the hidden states that it recorded.
    hook = adapter.tower.layers(adapter.vision_tower)[-1].register_forward_hook(restart, prepend=True)
    features = encoded(model, inputs, kind)
    hook.remove()
    (row,), direction = rows, torch.randn(features.shape[-1], generator=torch.Generator().manual_seed(0))
    slopes = [
        torch.autograd.grad(feature @ direction, row, retain_graph=True, allow_unused=True) for feature in features
    ]
    return torch.stack(
        [(torch.zeros_like(row) if slope is None else slope).flatten(0, -2).abs().sum(-1) > 0 for (slope,) in slopes]
    )


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_scores_are_the_column_sums_of_the_towers_own_attention(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = model_of(name), inputs_of(name, kind)
    images = images_of(name, inputs, FoPru())
    adapter = adapter_for(model)
    column_sums, n_frames = received(model, inputs, kind, adapter.encoder_layer(None), monkeypatch)
    assert n_frames == sum(image.layout.n_tiles for image in images)
    of_token = patches_of_tokens(model, inputs, kind)
    made = of_token.any(1)
    expected = (of_token * column_sums).sum(1) / of_token.sum(1)
    scores = torch.cat([image.scores for image in images if image.scores is not None])
    newlines = [image.layout.newlines for image in images]
    plain = torch.cat(
        [torch.ones(i.n_visual).bool() if n is None else ~n for i, n in zip(images, newlines, strict=True)]
    )
    assert torch.equal(plain, made)
    torch.testing.assert_close(scores[made], expected[made], atol=1e-5, rtol=1e-5)
    assert expected[made].std() > 0.02  # far above the tolerance, so a wrong row or layer would show


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
    of_token, patches = patches_of_tokens(model, inputs, kind), row.in_layers >= 0
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
    images = images_of(name, inputs_of(name, kind), Grid(keep_ratio=0.5))
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
    "hyperclovax": "Qwen2VLImageProcessor",
    "llava-onevision1.5": "Qwen2VLImageProcessor",
    "ovis2.5": "Ovis2_5ImageProcessor",
    "muse-glimmer": "MuseGlimmerImageProcessor",
    "minimax-m3": "MiniMaxM3VLImageProcessor",
}


@pytest.mark.parametrize("name", [name for name in PROCESSORS if name in (*NAMES, *COMPACT_ONLY)])
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
        encoded(adapter.model, dict(given), "image")
    hook.remove()
    ((args, kwargs),) = calls
    names = list(inspect.signature(type(adapter.vision_tower).forward).parameters)[1:]
    (image,) = adapter.tile_pixels({**dict(zip(names, args, strict=False)), **kwargs})
    expected = torch.from_numpy(colors).permute(2, 0, 1) / 255
    torch.testing.assert_close(adapter.tower.colors(image[None])[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("lfm3-vl", "has a convolution in place of attention"),
        ("muse-glimmer", "attends within small windows"),
        ("muse-spark", "attends within small windows"),
        ("ovis2.5", "attends within small windows"),
    ],
)
def test_layers_that_do_not_compare_all_patches_are_refused(name: str, what: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"layer=0 of this vision tower {what}.*layer=None .* one of \d"):
        tokenprune.patch(model_of(name), FoPru(layer=0))

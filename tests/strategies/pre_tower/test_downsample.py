"""Smaller images equal those that were passed as small ones, with the position IDs asked for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.contract.shrunk import any_size
from helpers.families import FAMILIES
from helpers.families.base import PATCH
from helpers.families.qwen_vl import MERGE
from torch import Tensor
from torch.nn.functional import interpolate
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

import tokenprune
from tokenprune import Compose, Downsample, FastV, FoPru, Mosaic, PruMerge, PruningError, SettingError, UnsupportedError
from tokenprune.adapters import adapter_for
from tokenprune.adapters.layouts.shrunk import resized, shrunk_grid
from tokenprune.strategies import parse
from tokenprune.tokens.layout import Layout
from tokenprune.tokens.shrunk import stretched

LLAVA = ["llava-clip", "llava-siglip", "llava-dinov2", "vip-llava"]
PACKED = ["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "qwen3.5", "qwen2.5-omni", "qwen3-omni", "glm4v", "hyperclovax"]
PACKED += ["paddleocr-vl", "kimi-k25", "ernie4.5-vl", "video-llama-3"]
BUDGETS: list[dict[str, Any]] = [{"keep_ratio": 0.5}, {"keep_ratio": 0.25}, {"keep": 5}]
TOLERANCE = 1e-5


def small_prompt(model: Any, inputs: dict[str, Any], report: tokenprune.Report) -> tuple[dict[str, Any], Tensor]:
    """Return the prompt of one row with small images, and which columns are left of the whole one."""
    (ids,), adapter, small = inputs["input_ids"], adapter_for(model), dict(inputs)
    kept = torch.ones(len(ids), dtype=torch.bool)
    for modality in adapter.modalities:
        images = [image for image in report.images if image.modality == modality.name]
        if not images:
            continue
        columns = (ids == modality.token_id).nonzero()[:, 0]
        for image, part in zip(images, columns.split([one.n_visual for one in images]), strict=True):
            kept[part] = False
            kept[part[image.kept]] = True
        small |= adapter.shrink(modality, inputs, [image.n_kept for image in images]).arguments
        if (compressed := inputs.get(f"{modality.name}_compression_mask")) is not None:  # nothing is
            small[f"{modality.name}_compression_mask"] = compressed[: sum(image.n_kept for image in images)]
    return small | {key: value[:, kept] for key, value in inputs.items() if value.shape[:2] == (1, len(ids))}, kept


def cases() -> list[Any]:
    found = [(name, "images") for name in (*LLAVA, *PACKED)]
    return [*found, *((name, "videos") for name in PACKED if FAMILIES[name].video_sizes)]


@pytest.mark.parametrize(("name", "what"), cases())
@pytest.mark.parametrize("position_ids", ["compact", "original"])
def test_it_is_as_if_the_images_had_been_passed_small(name: str, what: str, position_ids: Any) -> None:
    """The logits are those of the unpatched model on a prompt with small images, with its own position IDs or with
    those that the places in the large image have."""
    family = FAMILIES[name]
    model, inputs = family.build(), family.prompt([2]) if what == "images" else family.prompt([0], videos_per_row=[2])
    for budget in BUDGETS:
        strategy = Downsample(**budget)
        with torch.no_grad(), tokenprune.patch(model, strategy, position_ids=position_ids) as handle:
            found, report = model(**inputs).logits, handle.report
        small, kept = small_prompt(model, inputs, report)
        if position_ids == "original":
            small["position_ids"] = family.position_ids(model, inputs)[..., kept]
        with torch.no_grad(), any_size(model, adapter_for(model)):
            expected = model(**small).logits
        assert float((found - expected).abs().max()) < TOLERANCE
        for image in report.images:
            assert image.shrunk is not None
            assert image.n_kept == image.shrunk.layout.n_visual <= max(strategy.budget(image.n_visual), image.grid[0])


def test_position_ids_by_default(tmp_path: Path) -> None:
    """Compact, unless the user chooses, or another strategy follows."""
    model = FAMILIES["llava-clip"].build()
    (file := tmp_path / "half.json").write_text(json.dumps({"strategy": "downsample", "settings": {"keep_ratio": 0.5}}))
    both = "downsample:keep_ratio=0.5+mosaic:keep_ratio=0.5"
    for strategy, ids in [("downsample", "compact"), (file, "compact"), (both, "original"), ("mosaic", "original")]:
        with tokenprune.patch(model, strategy) as handle:
            assert handle.position_ids == ids
        with tokenprune.patch(model, strategy, position_ids="original") as handle:
            assert handle.position_ids == "original"


@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl"])
@pytest.mark.parametrize("then", [FoPru(keep=3), Mosaic(keep=3), PruMerge(keep=3), FastV(layer=1, keep=3)], ids=repr)
def test_what_prunes_after_it_prunes_a_small_image(name: str, then: tokenprune.Strategy) -> None:
    family = FAMILIES[name]
    model, inputs = family.build(), family.prompt([2])
    with torch.no_grad(), tokenprune.patch(model, Downsample(keep_ratio=0.5), position_ids="compact") as handle:
        model(**inputs)
        small, _ = small_prompt(model, inputs, handle.report)
    both = Compose(Downsample(keep_ratio=0.5), then)
    with torch.no_grad(), tokenprune.patch(model, both, position_ids="compact") as handle:
        found, report = model(**inputs).logits, handle.report
    with torch.no_grad(), any_size(model, adapter_for(model)), tokenprune.patch(model, then, position_ids="compact"):
        expected = model(**small).logits
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < TOLERANCE
    assert [image.n_left for image in report.images] == [3, 3]


def test_the_budget_after_a_smaller_image_counts_its_tokens(tmp_path: Path) -> None:
    """A keep ratio of all steps together is still that of the image as it was passed."""
    quarter = parse("downsample:keep_ratio=0.5+mosaic:keep_ratio=0.5")
    assert quarter == Compose(Downsample(keep_ratio=0.5), Mosaic(keep_ratio=0.5))
    assert (quarter.keep_ratio, quarter.budget(100)) == (0.25, 25)
    assert parse("downsample:keep_ratio=0.5+mosaic", keep_ratio=0.25) == quarter
    assert replace(quarter, keep_ratio=0.1).budget(100) == 10
    assert replace(quarter, keep_ratio=None, keep=7).budget(100) == 7
    assert Compose(Downsample(keep=64), FoPru(keep_ratio=0.25)).budget(100) == 16
    steps = ["downsample:keep_ratio=0.5", "mosaic"]
    (file := tmp_path / "both.json").write_text(
        json.dumps({"strategy": "compose", "settings": {"steps": steps, "keep_ratio": 0.25}})
    )
    assert parse(str(file)) == quarter
    family = FAMILIES["llava-clip"]
    model = family.build()
    with torch.no_grad(), tokenprune.patch(model, quarter) as handle:
        model(**family.prompt([1]))
        (image,) = handle.report.images
    assert [len(step.kept) for step in image.steps] == [16, 8]  # of 36, at most 18
    for first, why in [("keep_ratio=0.2", "less"), ("keep=64", "a count")]:
        with pytest.raises(SettingError, match=rf"keep_ratio=0.25 counts the whole image, of which .* leaves {why}"):
            parse(f"downsample:{first}+mosaic", keep_ratio=0.25)


@pytest.mark.parametrize("name", ["llava-clip", "qwen2-vl"])
def test_answers_continue_as_after_a_small_image(name: str) -> None:
    family = FAMILIES[name]
    model, inputs = family.build(), family.prompt([2])
    settings: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "num_beams": 2}
    with torch.no_grad(), tokenprune.patch(model, Downsample(keep_ratio=0.3), position_ids="compact") as handle:
        found = model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
        model(**inputs)
        small, _ = small_prompt(model, inputs, handle.report)
    with torch.no_grad(), any_size(model, adapter_for(model)):
        expected = model.generate(**small, **settings)[:, small["input_ids"].shape[1] :]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["llava-clip", "qwen2-vl"])
def test_an_image_that_fits_stays_as_it_is(name: str) -> None:
    family = FAMILIES[name]
    model, inputs = family.build(), family.prompt([2])
    with torch.no_grad():
        expected = model(**inputs).logits
        with tokenprune.patch(model, Downsample(keep_ratio=1.0)) as handle:
            assert torch.equal(model(**inputs).logits, expected)
    assert all(image.shrunk is None and "shrunk" not in repr(image) for image in handle.report.images)


def test_patches_are_those_of_the_models_own_processor() -> None:
    """Of the resized image, which it does not resize again."""
    processor = Qwen2VLImageProcessor(patch_size=PATCH, merge_size=MERGE, do_resize=False)
    image = torch.rand(3, 48, 32, generator=torch.Generator().manual_seed(0))
    plain = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
    whole = processor(image, **plain)
    adapter = adapter_for(FAMILIES["qwen2-vl"].build())
    small = adapter.shrink(adapter.modalities[0], dict(whole), [6])
    assert small.sizes == [(24, 16)]
    by_hand = interpolate(image[None], (24, 16), mode="bicubic", antialias=True)[0]
    colours = image.flatten(1)
    by_hand = by_hand.clamp(colours.amin(1)[:, None, None], colours.amax(1)[:, None, None])
    expected = processor(by_hand, **plain)
    assert small.arguments["image_grid_thw"].tolist() == expected["image_grid_thw"].tolist() == [[1, 6, 4]]
    assert torch.allclose(small.arguments["pixel_values"], expected["pixel_values"], atol=1e-6)


@pytest.mark.parametrize("name", PACKED)
def test_patches_are_put_together_as_for_strategies_that_read_pixels(name: str) -> None:
    """A row cut in another order would show another image; colours beyond the image's are cut off before averaging."""
    adapter, inputs = adapter_for(FAMILIES[name].build()), FAMILIES[name].prompt([1])
    modality = adapter.modalities[0]

    def shown(arguments: dict[str, Any]) -> Tensor:
        row, merges = arguments[modality.pixels], arguments.get("image_merge_sizes")
        call = {"hidden_states": row, "pixel_values": row, "grid_thw": arguments["image_grid_thw"]}
        return torch.stack([*adapter.tile_pixels({**call, "merge_sizes": merges})])

    small = shown(adapter.shrink(modality, inputs, [5]).arguments)
    expected = resized(shown(inputs), *small.shape[-2:])
    assert float((small - expected).abs().mean()) < 0.05 * float(expected.std())


def test_the_report_says_which_size() -> None:
    family = FAMILIES["qwen2-vl"]
    model = family.build()
    with torch.no_grad(), tokenprune.patch(model, "downsample", keep_ratio=0.5) as handle:
        model(**family.prompt([1], sizes=[(48, 32)]))
        (image,) = handle.report.images
    assert repr(image) == (
        "ImageReport(row=0, image, 6x4 grid, kept 12 of 24 visual tokens: shrunk to 32 x 24 pixels, 4x3 grid)"
    )
    assert image.kept.tolist() == [0, 2, 3, 8, 10, 11, 12, 14, 15, 20, 22, 23]


@pytest.mark.parametrize(
    ("grid", "n_kept", "expected"),
    [
        ((1, 24, 24), 144, (1, 12, 12)),
        ((1, 24, 24), 143, (1, 11, 11)),
        ((1, 24, 24), 576, (1, 24, 24)),
        ((1, 20, 30), 150, (1, 10, 15)),
        ((1, 1, 200), 100, (1, 1, 100)),
        ((4, 6, 6), 36, (4, 3, 3)),
        ((1, 1, 1), 1, (1, 1, 1)),
    ],
)
def test_the_largest_grid_of_the_same_aspect_ratio(grid: Any, n_kept: int, expected: Any) -> None:
    assert shrunk_grid(grid, n_kept) == expected


@pytest.mark.parametrize(("grid", "n_kept"), [((1, 1, 200), 99), ((1, 40, 8000), 4), ((4, 6, 6), 3)])
def test_no_grid_fits(grid: Any, n_kept: int) -> None:
    with pytest.raises(PruningError, match=rf"has at most {n_kept}: its shorter side would be less than half a token"):
        shrunk_grid(grid, n_kept)


def test_every_cell_has_its_own_place() -> None:
    for height, rows in [(7, 3), (24, 17), (5, 5), (9, 1)]:
        places = stretched(Layout.raster((2, height, 6)), Layout.raster((2, rows, 4)))
        assert places.unique(sorted=True).tolist() == places.tolist()


def test_no_colour_is_beyond_those_of_the_image() -> None:
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[..., 8:] = 1.0
    small = resized(pixels, 6, 6)
    assert (float(small.amin()), float(small.amax())) == (0.0, 1.0)
    assert resized(pixels.bfloat16(), 6, 6).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("llava-pixtral", "every row of an image ends with a token"),
        ("internvl", "its adapter does not know how"),
        ("exaone4.5", "attends within windows"),
    ],
)
def test_models_that_cannot_are_refused(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"needs a vision tower that encodes smaller images.*{reason}"):
        tokenprune.patch(FAMILIES[name].build(), Downsample(keep_ratio=0.5))


@pytest.mark.parametrize("settings", [{"keep": 0}, {"keep_ratio": 0.0}, {"keep_ratio": 0.5, "budget_per": "tile"}])
def test_settings_without_a_meaning(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="Downsample"):
        Downsample(**settings)


def test_a_line_is_refused_and_the_next_image_is_not() -> None:
    family = FAMILIES["qwen2-vl"]
    model = family.build()
    with torch.no_grad(), tokenprune.patch(model, Downsample(keep=4)) as handle:
        with pytest.raises(PruningError, match="the aspect ratio of 1 x 20 visual tokens"):
            model(**family.prompt([1], sizes=[(8, 160)]))
        model(**family.prompt([1], sizes=[(32, 32)]))
        assert handle.report.n_kept == 4

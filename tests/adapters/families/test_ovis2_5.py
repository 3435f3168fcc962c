"""Ovis 2.5, whose visual tokens transformers 5.25.0 leaves in the order of the tower's windows."""

from typing import Any

import pytest
import torch
import transformers
from helpers.contract.oracle import as_reported, assert_close, dropped_columns
from helpers.families import FAMILIES
from torch import Tensor

import tokenprune
from tokenprune import FoPru, Grid, PixelPrune, ToMe
from tokenprune.adapters import adapter_for
from tokenprune.adapters.families.ovis2_5 import stays_by_window
from tokenprune.adapters.towers.row import Row

NAME = "ovis2.5"
LIBRARY: Any = transformers
#: The windows, of 2 x 2 visual tokens, that an image of 3 x 5 has, and the place of each visual token.
WINDOWS = ((1, 2, 2), (1, 2, 2), (1, 2, 1), (1, 1, 2), (1, 1, 2), (1, 1, 1))
PLACES = [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]


def build(row_by_row: bool, attention: str = "sdpa") -> Any:
    """Return a model as it is or, like the authors' code, with visual tokens row by row."""
    model: Any = FAMILIES[NAME].build(attention)
    if row_by_row:
        model.model.__class__ = row_by_row_model()
    return model


def row_by_row_model() -> type:
    """Return a base model that puts the hidden states back in order before the projector."""

    class RowByRow(LIBRARY.Ovis2_5Model):
        def get_image_features(self, pixel_values: Tensor, image_grid_thw: Tensor, **kwargs: Any) -> Any:
            config: Any = self.vision_tower.config
            index, _ = LIBRARY.vision_utils.get_vision_window_index(
                image_grid_thw, config.spatial_merge_size, config.window_size, config.patch_size
            )
            hook = self.multi_modal_projector.register_forward_pre_hook(
                lambda module, args: (args[0].view(len(index), -1, args[0].shape[-1])[index.argsort()].flatten(0, 1),)
            )
            try:
                return super().get_image_features(pixel_values, image_grid_thw, **kwargs)
            finally:
                hook.remove()

    return RowByRow


def row_of(model: Any, grids: Tensor) -> Row:
    row = adapter_for(model).tower.row
    assert row is not None
    return row.describe(grids, model.config.vision_config)


def test_the_order_is_found_out() -> None:
    assert FAMILIES[NAME].class_name  # skips the test if transformers lacks it
    config = LIBRARY.Ovis2_5Config
    before = torch.random.get_rng_state()
    assert stays_by_window(LIBRARY.Ovis2_5Model, config)
    assert not stays_by_window(row_by_row_model(), config)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_windows_are_rasters() -> None:
    model, inputs = build(False), FAMILIES[NAME].prompt([1], sizes=[(24, 40)])
    with torch.no_grad(), tokenprune.patch(model, Grid(keep_ratio=0.5)) as handle:
        model(**inputs)
    (image,) = handle.report.images
    assert image.layout.grids == WINDOWS
    row = row_of(model, inputs["image_grid_thw"])
    assert row.places is not None
    assert row.places.tolist() == PLACES
    raster = torch.arange(15.0).view(3, 5).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert image.layout.to_tokens(raster.flatten()[None]).tolist() == PLACES


def test_frames_of_a_video() -> None:
    model, inputs = build(False), FAMILIES[NAME].prompt([0], videos_per_row=[1])
    with torch.no_grad(), tokenprune.patch(model, Grid(keep_ratio=0.5)) as handle:
        model(**inputs)
    (video,) = handle.report.images
    assert video.layout.grids == ((1, 2, 2), (1, 2, 1), (1, 2, 2), (1, 2, 1)) * 2
    assert video.layout.n_tiles == 2
    assert video.layout.frame is not None
    assert video.layout.frame.tolist() == [0] * 12 + [1] * 12


@pytest.mark.parametrize("kind", ["image", "video"])
def test_what_is_kept_does_not_depend_on_the_order(kind: str) -> None:
    """By the tower's attention, without ties, and before the tower, where patches are compared with neighbours."""
    family, kept = FAMILIES[NAME], {}
    inputs = family.prompt([1], sizes=[(24, 40)]) if kind == "image" else family.prompt([0], videos_per_row=[1])
    grids = inputs[f"{kind}_grid_thw"]
    name = "pixel_values" if kind == "image" else "pixel_values_videos"
    pixels = inputs[name].view(-1, 4, inputs[name].shape[-1])
    pixels[1], pixels[5] = pixels[0], pixels[4]  # repeat their left neighbours
    for row_by_row in (False, True):
        model = build(row_by_row)
        for strategy in (FoPru(keep_ratio=0.4), PixelPrune()):
            with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
                model(**inputs)
            (image,) = handle.report.images
            assert 0 < image.n_kept < image.n_visual
            row = row_of(model, grids)
            assert (row.places is None) == row_by_row
            places = image.kept if row.places is None else row.places[image.kept].sort().values
            kept.setdefault(type(strategy), []).append(places.tolist())
    assert all(one == other for one, other in kept.values())


@pytest.mark.parametrize("strategy", [FoPru(keep_ratio=0.4), PixelPrune(keep_ratio=0.5), ToMe(keep_ratio=0.4)])
@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_model_with_visual_tokens_row_by_row(strategy: tokenprune.Strategy, kind: str) -> None:
    family, model = FAMILIES[NAME], build(True)
    inputs = family.prompt([2, 1]) if kind == "image" else family.prompt([0, 0], videos_per_row=[1, 1])
    with torch.no_grad(), tokenprune.patch(model, strategy) as handle:
        logits, report = model(**inputs).logits, handle.report
    dropped = dropped_columns(inputs["input_ids"], [report])
    with as_reported(model, inputs["input_ids"], [report]):
        expected = family.oracle(model, inputs, dropped)
    for row, left in enumerate((inputs["attention_mask"].bool() & ~dropped).sum(1).tolist()):
        real = inputs["attention_mask"][row].bool() & ~dropped[row]
        assert_close(logits[row, -left:], expected[row, real])
    sizes = family.sizes if kind == "image" else family.video_sizes
    for image, (*frames, height, width) in zip(report.images, sizes, strict=False):
        assert image.grid == (*(frames or [1]), height // 8, width // 8)

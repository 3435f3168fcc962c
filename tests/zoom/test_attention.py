"""Attention that points at what to look at, and the pyramid of crops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.modes.test_devices import from_cpu, from_disk
from engine.modes.test_distributed import group as group
from helpers.families import FAMILIES
from helpers.families.base import decoder
from helpers.families.llava import Llava
from helpers.files.evals import tiny_processor
from helpers.tiny import IMAGE, SIDE, tiny_llava
from PIL import Image
from torch.nn.parallel import DistributedDataParallel
from transformers import Qwen2Config

import tokenprune
from tokenprune.errors import SettingError
from tokenprune.zoom.attention import question_attention
from tokenprune.zoom.pyramid import View, as_rgb, pyramid, thumbnail
from tokenprune.zoom.search import Zoom


def test_it_is_the_attention_of_the_last_row() -> None:
    model = tiny_llava("clip", attention="eager")
    inputs = FAMILIES["llava-clip"].prompt([2])
    (weights,) = [
        model(**inputs, output_attentions=True).attentions[layer][0].mean(0)[-1] for layer in (0,)
    ]  # (tokens,)
    visual = inputs["input_ids"][0] == IMAGE
    found = torch.cat([image.scores for image in question_attention(model, inputs, 0)])
    torch.testing.assert_close(found, weights[visual])


def test_the_models_own_patch_is_restored() -> None:
    model, inputs = tiny_llava("clip"), FAMILIES["llava-clip"].prompt([1])
    with tokenprune.patch(model, tokenprune.Random(keep=3)) as handle:
        question_attention(model, inputs, 0)
        model(**inputs)
        assert handle.report.n_kept == 3
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("name", ["idefics2", "aria", "deepseek-ocr2"])
def test_visual_tokens_without_a_place_are_refused(name: str) -> None:
    """They come from queries that have read all patches, so their attention would point nowhere."""
    family = FAMILIES[name]
    with pytest.raises(tokenprune.UnsupportedError, match="Zoom follows attention to places in the image"):
        question_attention(family.build(), family.prompt([1]), 0)


def test_attention_that_is_not_finite_points_nowhere() -> None:
    model = tiny_llava("clip")
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(tokenprune.PruningError, match=r"decoder layer 0 has NaN or infinite values.*bfloat16"):
        Zoom(layer=0).look(model, tiny_processor(), Image.effect_noise((5 * SIDE, SIDE), 80), "01")


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")
@pytest.mark.parametrize("dispatch", [from_cpu, from_disk])
def test_a_model_whose_weights_are_elsewhere(dispatch: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    """The first weight, which gives a model's device, is on no device until it is needed."""
    image = Image.effect_noise((5 * SIDE, SIDE), 80)
    expected = Zoom().look(tiny_llava(), tiny_processor(), image, "01")
    model = dispatch(tiny_llava(), tmp_path)
    look = Zoom().look(model, tiny_processor(), image, "01")
    assert repr(look) == repr(expected)
    assert model.generate(**look.inputs, max_new_tokens=2, do_sample=False).shape[0] == 1


@pytest.mark.usefixtures("group")
def test_a_wrapper_that_does_not_say_where_it_is() -> None:
    image = Image.effect_noise((5 * SIDE, SIDE), 80)
    expected = Zoom().look(tiny_llava(), tiny_processor(), image, "01")
    assert repr(Zoom().look(DistributedDataParallel(tiny_llava()), tiny_processor(), image, "01")) == repr(expected)


class Windowed(Llava):
    """A LLaVA whose first decoder layer, or all, attends to 60 tokens at a time."""

    def __init__(self, second: str) -> None:
        super().__init__("llava-clip")
        self.second = second

    def config(self) -> Any:
        config = super().config()
        kinds = ["sliding_attention", self.second]
        config.text_config = Qwen2Config(**decoder(use_sliding_window=True, sliding_window=60, layer_types=kinds))
        return config


@pytest.mark.parametrize(("second", "instead"), [("sliding_attention", ""), ("full_attention", r"Zoom\(layer=1\), ")])
def test_a_layer_that_does_not_see_the_whole_prompt_is_refused(second: str, instead: str) -> None:
    """In a prompt with all tiles, the last token attends to those within the window only."""
    model: Any = Windowed(second).build()
    image = Image.effect_noise((3 * SIDE, 2 * SIDE), 80).convert("RGB")
    assert Zoom(layer=0).look(model, tiny_processor(), image, "01").steps
    said = rf'layer 0 attends to 60 tokens at a time, and the prompt has \d+\. Write {instead}fewer tiles, or prompts="'
    with pytest.raises(tokenprune.UnsupportedError, match=said):
        Zoom(layer=0, prompts="together").look(model, tiny_processor(), image, "01")


# The levels of a large image: their tiles, views and boxes.


def grids(width: int, height: int, tile: int) -> list[tuple[int, int]]:
    return [(level.rows, level.columns) for level in pyramid(width, height, tile)]


def test_levels_of_the_papers_example() -> None:
    assert grids(4000, 4000, 336) == [(3, 3), (6, 6), (12, 12)]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (336, 200, []),  # fits into one tile
        (337, 100, [(1, 2)]),
        (1008, 1008, [(3, 3)]),
        (1009, 1009, [(4, 4)]),  # without (3, 3) before it
        (1513, 1513, [(3, 3), (5, 5)]),
        (2016, 1008, [(2, 3), (3, 6)]),
        (5400, 2700, [(2, 3), (5, 9), (9, 17)]),
        (30, 4000, [(3, 1), (6, 1), (12, 1)]),
    ],
)
def test_levels_of_other_sizes(width: int, height: int, expected: list[tuple[int, int]]) -> None:
    assert grids(width, height, 336) == expected


@pytest.mark.parametrize(("width", "height"), [(5400, 2700), (337, 100), (1009, 2000)])
def test_tiles_cover_the_image_and_never_overlap(width: int, height: int) -> None:
    for level in pyramid(width, height, 336):
        boxes = [view.box for view in level.views()]
        assert len(boxes) == level.rows * level.columns
        assert max(box[2] for box in boxes) >= width - 1e-6
        assert max(box[3] for box in boxes) >= height - 1e-6
        for view in level.views():
            assert level.tile_at(view.box[0] + 0.25, view.box[1] + 0.25) == (view.row, view.column)
        # Every tile shows some of the image.
        assert all(box[0] < width and box[1] < height for box in boxes)


def test_a_tile_is_what_lies_in_its_box_and_black_beyond_the_edge() -> None:
    image = Image.new("RGB", (60, 40), "red")
    image.paste((0, 0, 255), (30, 0, 60, 40))
    (level,) = pyramid(60, 40, 30)
    assert (level.rows, level.columns) == (2, 2)
    blue, below = level.view(0, 1).crop(image, 30), level.view(1, 0).crop(image, 30)
    assert blue.size == (30, 30)
    assert blue.getcolors() == [(900, (0, 0, 255))]
    assert sorted(below.getcolors()) == [(300, (255, 0, 0)), (600, (0, 0, 0))]


def test_a_view_is_shown_in_whole_pixels() -> None:
    assert str(View((0.4, 10.7, 99.6, 20.0), 1, 2, 3)) == "level 1, row 2, column 3 (0, 11, 100, 20)"
    assert str(View((0.0, 0.0, 9.0, 9.0))) == "thumbnail (0, 0, 9, 9)"


def test_the_thumbnail_is_the_whole_image_in_a_square() -> None:
    view = thumbnail(60, 40)
    small = view.crop(Image.new("RGB", (60, 40), "red"), 30)
    assert small.size == (30, 30)
    assert sorted(small.getcolors()) == [(300, (0, 0, 0)), (600, (255, 0, 0))]
    assert view.in_whole((0.0, 0.0, 1.0, 2 / 3)) == pytest.approx((0, 0, 60, 40))


def test_a_box_in_a_view_is_mapped_to_the_whole_image() -> None:
    assert View((100.0, 200.0, 300.0, 400.0)).in_whole((0.5, 0.0, 1.0, 0.25)) == (200, 200, 300, 250)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_not_cut_off(mode: str) -> None:
    image = Image.new(mode, (4, 3))
    with pytest.raises(SettingError, match=r"more than 8 bits .* Scale it, one of 16 bits like this"):
        as_rgb(image)
    if mode == "I;16":
        image.putpixel((3, 0), 32768)
        scaled = image.convert("I").point(lambda level: level / 257).convert("L")  # as the error says
        assert as_rgb(scaled).getpixel((3, 0)) == (127, 127, 127)

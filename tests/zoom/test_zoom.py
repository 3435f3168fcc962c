"""Coarse to fine: votes for tiles, and the loop over levels."""

from typing import Any

import pytest
import torch
from helpers.families import FAMILIES
from helpers.families.llava_next import LlavaNext
from helpers.files.evals import tiny_processor
from helpers.tiny import IMAGE, SIDE
from PIL import Image

import tokenprune
from tokenprune.adapters import ADAPTERS
from tokenprune.adapters.families.llava import LlavaAdapter
from tokenprune.prompts import encode_chat
from tokenprune.tokens import Layout
from tokenprune.zoom.attention import QuestionAttention, token_centers
from tokenprune.zoom.pyramid import Level, as_rgb, input_side, pyramid, thumbnail
from tokenprune.zoom.search import Step, Zoom, centered, vote

# Votes.

LEVEL = Level(1, 400, 200, 2, 4)  # tiles of 100 px


def test_tiles_that_get_the_sharpest_attention_come_first_and_are_listed_row_by_row() -> None:
    places = torch.tensor([[350.0, 150], [360, 160], [10, 10], [50, 150], [60, 150], [150, 50]])
    scores = torch.tensor([0.5, 0.1, 0.6, 0.3, 0.4, 0.0])
    found = vote(places, scores, 5 / 6, LEVEL, 8)
    assert [(view.row, view.column) for view in found] == [(0, 0), (1, 0), (1, 3)]  # (0, 1) is not among the best 5
    # Squares: 0.36 in (0, 0), 0.26 in (1, 3), 0.25 in (1, 0), though that has the greatest sum.
    assert [(view.row, view.column) for view in vote(places, scores, 5 / 6, LEVEL, 1)] == [(0, 0)]
    assert [(view.row, view.column) for view in vote(places, scores, 5 / 6, LEVEL, 2)] == [(0, 0), (1, 3)]
    assert [(view.row, view.column) for view in vote(places, scores, 1 / 6, LEVEL, 8)] == [(0, 0)]


def test_tokens_on_padding_do_not_vote() -> None:
    places = torch.tensor([[350.0, 250], [10, 10]])
    assert [(v.row, v.column) for v in vote(places, torch.tensor([0.9, 0.1]), 1.0, LEVEL, 8)] == [(0, 0)]


def test_tokens_nearest_to_a_very_narrow_image_vote() -> None:
    """In such an image, no token has its center."""
    level = Level(1, 400, 8, 1, 4)
    places = torch.tensor([[50.0, 10], [150, 10], [350, 10], [50, 30], [250, 30]])
    found = vote(places, torch.tensor([0.1, 0.2, 0.3, 0.9, 0.9]), 2 / 3, level, 8)
    assert [(view.row, view.column) for view in found] == [(0, 1), (0, 3)]


@pytest.mark.parametrize("size", [(12 * SIDE, 2), (1, 7 * SIDE)])
def test_a_very_narrow_image_is_searched(llava: Any, size: tuple[int, int]) -> None:
    look = Zoom().look(llava, tiny_processor(), Image.new("RGB", size, "red"), "01")
    assert all(step.views for step in look.steps)
    assert len(look.steps) > 1


def test_newline_tokens_have_no_center_and_never_vote() -> None:
    """The released code counts them, and so selects the right-most column of tiles for any question."""
    newlines = torch.tensor([False] * 4 + [False, False, False, False, True] * 4)  # of a canvas after an overview
    layout = Layout(((1, 2, 2), (1, 4, 5)), 5, tiles=torch.zeros(24, dtype=torch.long), newlines=newlines)
    centers = token_centers(layout)
    assert centers.isnan().any(1).tolist() == layout.newlines.tolist()  # type: ignore[union-attr]
    assert centers[4:8, 0].tolist() == [0.125, 0.375, 0.625, 0.875]  # the newline column has no width
    scores = torch.full((24,), 0.01).masked_fill(layout.newlines, 1.0)  # type: ignore[arg-type]
    scores[4] = 0.5  # the upper left token of the canvas
    here = QuestionAttention.of(scores, layout)
    assert here.n_visual == 24
    assert len(here.scores) == 20
    assert [(v.row, v.column) for v in vote(here.centers * 100, here.scores, 0.05, Level(0, 100, 100, 2, 2), 4)] == [
        (0, 0)
    ]


def test_a_view_is_centered_on_what_it_points_to() -> None:
    left, right = LEVEL.view(0, 0), LEVEL.view(0, 1)
    places = torch.tensor([[0.25, 0.5], [0.95, 0.5]])
    step = Step(
        (left, right),
        (
            QuestionAttention(torch.tensor([0.0, 0.6]), places, 2),
            QuestionAttention(torch.tensor([0.2, 0.0]), places, 2),
        ),
    )
    assert step.best == 0
    # 0.6 at x = 95 and 0.2 at x = 125, in y half of the tile; kept inside the image.
    assert centered(step, 400, 200).box == pytest.approx((52.5, 0, 152.5, 100))


# The loop over levels, with real processors.

FAMILY_NAMES = ["llava-clip", "llava-next", "llava-onevision"]


def processor_of(name: str) -> Any:
    from transformers import (
        LlavaNextImageProcessor,
        LlavaNextProcessor,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    llava = tiny_processor()
    if name == "llava-clip":
        return llava
    family: Any = FAMILIES[name]
    assert isinstance(family, LlavaNext)
    size = {"height": family.tile, "width": family.tile}
    settings: Any = {"size": size, "image_grid_pinpoints": family.resolutions()}
    common: Any = {"tokenizer": llava.tokenizer, "patch_size": 4, "chat_template": llava.chat_template}
    if name == "llava-next":
        return LlavaNextProcessor(
            LlavaNextImageProcessor(**settings, crop_size=size),
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            **common,
        )
    return LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(**settings),
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(family.tile // 4) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
        video_token="w92",
        **common,
    )


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def loaded(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return FAMILIES[request.param].build(), processor_of(request.param)


def large(side: int) -> Image.Image:
    return Image.effect_noise((side, side * 3 // 4), 80).convert("RGB")


@pytest.mark.parametrize("prompts", ["apart", "together"])
def test_a_look_goes_down_the_pyramid_and_its_inputs_are_answered(loaded: tuple[Any, Any], prompts: Any) -> None:
    model, processor = loaded
    tile = input_side(processor)
    model(**encode_chat(processor, [[large(tile)]], ["01"]))  # the first call adds transformers' own hooks
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    look = Zoom(prompts=prompts, tiles=2, keep_ratio=0.1).look(model, processor, large(10 * tile), "01 02")

    levels = pyramid(10 * tile, 10 * tile * 3 // 4, tile)
    assert [view.level for view in look.steps[0].views] == [None, *[0] * (levels[0].rows * 3)]
    for number, step in enumerate(look.steps[1:], start=1):
        tiles = [view for view in step.views if view.level is not None]
        assert 1 <= len(tiles) <= 2
        assert {view.level for view in tiles} == {number}
        assert len(step.views) - len(tiles) == (prompts == "together")
    assert len(look.views) == (1 if prompts == "apart" else len(max(look.steps, key=lambda step: step.focus).views))
    assert look.n_visual > 0
    per_view = look.steps[0].attention[0].n_visual
    assert look.n_all == per_view * (1 + levels[-1].rows * levels[-1].columns)
    placeholders = int((look.inputs["input_ids"] == model.config.image_token_id).sum())
    assert placeholders == per_view * len(look.views) if prompts == "together" else placeholders >= per_view
    assert model.generate(**look.inputs, max_new_tokens=2, do_sample=False).shape[0] == 1
    assert {name: dict(module.__dict__) for name, module in model.named_modules()} == before
    assert f"answers from {look.views[0]}" in repr(look)


def test_the_search_stops_once_attention_is_less_sharp(llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes from the view with the sharpest attention, and the search stops after a level with less sharp
    ones."""
    given = iter([0.1, 0.3, 0.2, 0.9])
    calls = []

    def attention(model: Any, inputs: Any, layer: int, adapter: Any) -> list[QuestionAttention]:
        if not calls or calls[-1] != len(inputs["input_ids"]):
            calls.append(len(inputs["input_ids"]))
        sharpest = next(given)
        places = torch.tensor([[0.5, 0.5], [0.25, 0.25]])
        return [QuestionAttention(torch.tensor([sharpest, 0.0]), places, 36) for _ in range(len(inputs["input_ids"]))]

    monkeypatch.setattr("tokenprune.zoom.search.question_attention", attention)
    look = Zoom(tiles=1, batch_size=99).look(llava, tiny_processor(), large(SIDE * 30), "01")
    assert [step.focus for step in look.steps] == pytest.approx([0.01, 0.09, 0.04])
    assert look.views[0].level == 1


def test_an_image_that_fits_into_one_tile_is_shown_as_it_is(llava: Any) -> None:
    look = Zoom().look(llava, tiny_processor(), large(SIDE), "01")
    assert look.views == (thumbnail(SIDE, SIDE * 3 // 4),)
    assert len(look.steps) == 1


def test_batches_change_nothing(llava: Any) -> None:
    image = large(SIDE * 5)
    one, many = (Zoom(batch_size=n).look(llava, tiny_processor(), image, "01 02") for n in (1, 8))
    assert [view.row for view in one.views] == [view.row for view in many.views]
    assert [view.box for view in one.views] == [pytest.approx(view.box, abs=1e-3) for view in many.views]  # rounding
    torch.testing.assert_close(one.steps[0].attention[-1].scores, many.steps[0].attention[-1].scores)


def test_every_image_of_a_batch_belongs_to_its_own_row() -> None:
    rows = [[large(SIDE)], [large(SIDE), large(SIDE)]]
    inputs = encode_chat(tiny_processor(), rows, ["01"] * 2)
    assert (inputs["input_ids"] == IMAGE).sum(1).tolist() == [36, 72]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_ratio": 0.0}, r"Zoom: keep_ratio=0\.0 .* a quarter of them\.$"),  # it has no count
        ({"tiles": 0}, "Zoom: tiles=0"),
        ({"tile": 2.5}, "Zoom: tile=2.5"),
        ({"batch_size": True}, "Zoom: batch_size=True"),
        ({"layer": "middle"}, "Zoom: layer='middle'"),
        ({"prompts": "apart."}, "Did you mean 'apart'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_settings(settings: Any, message: str) -> None:
    with pytest.raises(tokenprune.SettingError, match=message):
        Zoom(**settings)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("image", ["harbour.jpg", torch.zeros(3, 8, 8)])
def test_what_is_no_image(llava: Any, image: Any) -> None:
    with pytest.raises(tokenprune.SettingError, match=r"Zoom: a (str|Tensor) is not a PIL image. Open it"):
        Zoom().look(llava, tiny_processor(), image, "01")


def test_an_image_with_a_palette_is_seen_in_its_colors() -> None:
    """Index 0 is white here, and indices cannot be interpolated."""
    image = Image.new("P", (3, 2), 1)
    image.putpalette([255, 255, 255, 200, 0, 0, 0, 100, 0])
    image.putpixel((2, 0), 2)
    assert as_rgb(image).getpixel((2, 0)) == (0, 100, 0)
    view = thumbnail(3, 2).crop(as_rgb(image), 3)
    assert view.getpixel((0, 2)) == (0, 0, 0)
    shrunk = thumbnail(3, 2).crop(as_rgb(image), 1)
    assert shrunk.getpixel((0, 0)) not in [(200, 0, 0), (0, 100, 0), (255, 255, 255)]


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_does_not_exist(llava: Any, layer: int) -> None:
    with pytest.raises(tokenprune.SettingError, match=r"layers, 0\.\.1"):
        Zoom(layer=layer).look(llava, tiny_processor(), large(SIDE), "01")


@pytest.mark.parametrize("size", [{"shortest_edge": 3136, "longest_edge": 12845056}, None])
def test_a_processor_without_a_fixed_size_needs_the_tile(size: Any) -> None:
    processor = tiny_processor()
    processor.image_processor.size = size
    with pytest.raises(tokenprune.SettingError, match=r"Zoom\(tile=448\)"):
        input_side(processor)


def test_an_adapter_of_your_own(llava: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Zoom().look(llava, tiny_processor(), large(SIDE), "01")
    monkeypatch.delitem(ADAPTERS, "LlavaForConditionalGeneration")
    with pytest.raises(tokenprune.UnsupportedError):
        Zoom().look(llava, tiny_processor(), large(SIDE), "01")
    found = Zoom().look(llava, tiny_processor(), large(SIDE), "01", adapter=LlavaAdapter)
    assert repr(found) == repr(expected)


class Slicing:
    """A processor that cuts every image in two, as MiniCPM-V's and LFM2-VL's cut large ones."""

    def __init__(self) -> None:
        self.processor = tiny_processor()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.processor, name)

    def __call__(self, images: Any, text: list[str], **options: Any) -> Any:
        text = [one.replace("<image>", "<image><image>") for one in text]
        return self.processor(images=[own * 2 for own in images], text=text, **options)


@pytest.mark.parametrize("side", [SIDE, 4 * SIDE])
def test_a_processor_that_makes_several_images_of_a_view(llava: Any, side: int) -> None:
    with pytest.raises(tokenprune.UnsupportedError, match=r"Slicing makes \d+ images of \d+ views.*smaller tile"):
        Zoom(tile=SIDE).look(llava, Slicing(), large(side), "01")

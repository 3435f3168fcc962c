"""Explaining one image: its parts, and the figure."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from helpers.families import FAMILIES
from helpers.families.llava import Llava
from helpers.files.evals import CHAT_TEMPLATE, sample_image, tiny_processor
from helpers.tiny import tiny_llava
from PIL import Image
from transformers import LlavaNextImageProcessor, LlavaNextProcessor

import tokenprune
from tokenprune import SettingError
from tokenprune.errors import DataError, UnsupportedError
from tokenprune.evals.bench.measuring import ttft_ratios
from tokenprune.evals.boxes import Box
from tokenprune.evals.explain import page as kept_tokens_page
from tokenprune.evals.explain import sheet as kept_tokens
from tokenprune.evals.explain.canvas import canvas
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.explain.outcomes import Explanation
from tokenprune.evals.explain.panels import edges
from tokenprune.evals.models.image_view import ImageView, full_view, padded_view
from tokenprune.evals.run.setups import Unpruned, make_setups
from tokenprune.tokens import Layout


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit answers: a random model does not stop on its own."""
    monkeypatch.setattr("tokenprune.evals.explain.explain.MAX_NEW_TOKENS", 4)
    monkeypatch.setattr("tokenprune.evals.explain.page.SLIDER", (0.5,))


BOX = (30.0, 10.0, 45.0, 30.0)


def explained(
    *strategies: str,
    ratios: tuple[float, ...] = (0.25,),
    model: Any = None,
    of: Image.Image | None = None,
    true_box: Box | None = None,
) -> Explanation:
    compared = make_setups(strategies, ratios, ["original"], baselines=[])
    asked = model or tiny_llava(), tiny_processor(), of or sample_image(), "Where is it?"
    return explain(*asked, compared, true_box=true_box, rounds=0)


def test_what_a_strategy_kept_and_ranked() -> None:
    told = explained("grid", "fopru", true_box=BOX)
    unpruned, grid, fopru = (outcome.kept for outcome in told.outcomes)
    assert [kept.summary for kept in (unpruned, grid, fopru)] == [
        "36 of 36 visual tokens",
        "9 of 36 visual tokens",
        "9 of 36 visual tokens",
    ]
    assert unpruned.left.all()
    assert grid.scores is None
    assert fopru.scores is not None
    assert set(np.argsort(-fopru.scores)[:9]) == set(np.flatnonzero(fopru.left))
    assert told.outcomes[1].kv_cache_bytes < told.unpruned.kv_cache_bytes
    assert told.outcomes[1].iou == 0.0  # a random model answers no box


def test_the_answer_is_that_of_a_plain_call() -> None:
    model: Any = tiny_llava()
    processor: Any = tiny_processor()
    told = explained("fopru", model=model)
    inputs = processor(
        images=[sample_image()],
        text=processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where is it?"}]}],
            add_generation_prompt=True,
        ),
        return_tensors="pt",
    )
    with tokenprune.patch(model, tokenprune.FoPru(keep_ratio=0.25)), torch.inference_mode():
        output = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    answer = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert told.outcomes[1].answer == answer.strip()


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")  # in transformers before 5.2x
def test_an_offloaded_model_is_explained_like_any_other() -> None:
    """Its weights are on torch's meta device, where inputs would be lost if moved there."""
    here = explained("fopru")
    away = explained("fopru", model=cpu_offload(tiny_llava(), execution_device=torch.device("cpu")))
    assert away.outcomes[1].answer == here.outcomes[1].answer
    assert away.outcomes[1].kept.left.tolist() == here.outcomes[1].kept.left.tolist()


def test_stages_in_the_language_model() -> None:
    kept = explained("fastv:layer=1", model=Llava("llava-clip").build(n_layers=4)).outcomes[1].kept
    assert kept.entered.all()
    assert kept.left.sum() == 9
    assert kept.n_mean == (36 + 3 * 9) / 4
    assert kept.scored_at == 1
    assert kept.summary == "15.75 of 36 tokens a layer"


def test_a_skipped_layer_sees_no_tokens() -> None:
    kept = explained("par:layer=1,skip=[2]", model=Llava("llava-clip").build(n_layers=5)).outcomes[1].kept
    assert kept.n_mean == (36 + 3 * 9) / 5


def test_merged_tokens_are_told() -> None:
    kept = explained("averagepooling").outcomes[1].kept
    assert (kept.received == kept.left).all()
    assert not explained("grid").outcomes[1].kept.received.any()


def test_times_are_ratios_to_the_unpruned_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fake clock in which a prefill takes as long as it has visual tokens, and every round is slower than the
    last."""
    model: Any = tiny_llava()
    now, calls = [0.0], [0]

    def generate(**inputs: Any) -> None:
        calls[0] += 1
        with torch.inference_mode():
            n_visual = model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"]).logits.shape[1]
        now[0] += n_visual * (1 + (calls[0] - 1) // 2)

    from tokenprune.prompts import encode_chat

    inputs = encode_chat(tiny_processor(), [[sample_image()]], ["1"])
    monkeypatch.setattr(model, "generate", generate)
    monkeypatch.setattr("tokenprune.evals.bench.timing.stopwatch.time.perf_counter", lambda: now[0])
    compared = make_setups(["grid"], [0.25], ["original"], baselines=[])
    (ratio,) = ttft_ratios(model, inputs, compared, rounds=3)
    length = inputs["input_ids"].shape[1]
    assert ratio == pytest.approx((length - 27) / length)


@pytest.mark.parametrize(
    ("question", "change", "message"),
    [
        ("Is <image> it?", {}, "the question contains the placeholder <image>"),
        ("Is it?", {"chat_template": CHAT_TEMPLATE.replace("<image>", "")}, "leaves out the placeholder"),
        ("Is it?", {"chat_template": None}, "LlavaProcessor has no chat template"),
    ],
)
def test_questions_that_cannot_be_asked(question: str, change: dict[str, Any], message: str) -> None:
    processor = tiny_processor()
    for name, value in change.items():
        setattr(processor, name, value)
    with pytest.raises((DataError, UnsupportedError), match=message):
        explain(tiny_llava(), processor, sample_image(), question, [], rounds=0)


def test_a_smaller_image_is_what_downsampling_shows() -> None:
    """Its tokens are all kept, and its box is in pixels of the given image."""
    told = explained("downsample", "grid", true_box=BOX)
    unpruned, smaller, grid = told.outcomes
    assert [one.canvas is None for one in told.outcomes] == [True, False, True]
    assert smaller.canvas is not None
    (raster,) = smaller.canvas.rasters
    (whole,) = told.canvas.rasters
    assert raster.image.size == (12, 12)  # 3 x 3 patches of 4 pixels, of 6 x 6
    assert (raster.place, raster.window) == (whole.place, whole.window)
    assert smaller.kept.left[raster.tokens].all()
    assert (smaller.kept.summary, grid.kept.summary) == ("9 of 36 visual tokens",) * 2
    assert smaller.kv_cache_bytes == grid.kv_cache_bytes < unpruned.kv_cache_bytes


def test_what_changes_nothing_is_not_drawn() -> None:
    with pytest.raises(SettingError, match="unpruned prunes nothing"):
        explain(tiny_llava(), tiny_processor(), sample_image(), "Where?", [Unpruned()], rounds=0)


def test_a_patched_model_does_not_pass_for_the_unpruned_one() -> None:
    model = tiny_llava()
    with tokenprune.patch(model, "grid"), pytest.raises(SettingError, match="the model is patched, with Grid"):
        explained("grid", model=model)


# The canvas.


def test_the_canvas_of_one_raster() -> None:
    shown = canvas(sample_image((60, 40)), Layout.raster((1, 6, 6)), full_view((60, 40)))
    (raster,) = shown.rasters
    assert raster.place == pytest.approx((0, 0, 1000, 2000 / 3))
    assert shown.boxes(BOX) == [pytest.approx((500, 1000 / 6, 750, 500))]
    assert raster.tokens.tolist() == np.arange(36).reshape(6, 6).tolist()


def test_a_view_beyond_the_image_and_one_within() -> None:
    tall = sample_image((20, 60), (0, 0, 19, 59))
    (raster,) = canvas(tall, Layout.raster((1, 6, 6)), padded_view((20, 60))).rasters
    assert raster.image.size == (60, 60)
    assert raster.image.getpixel((5, 30)) == (127, 127, 127)
    assert raster.image.getpixel((30, 30)) == (255, 165, 0)
    assert raster.on_canvas((0.0, 0.0, 20.0, 60.0)) == pytest.approx((1000 / 3, 0, 2000 / 3, 1000))
    (raster,) = canvas(tall, Layout.raster((1, 6, 6)), ImageView((0.0, 20.0, 20.0, 40.0), (20, 20))).rasters
    assert raster.image.size == (20, 20)


def test_the_canvas_of_tiles() -> None:
    """It is not known which part of the image a tile shows, so boxes are drawn only on the image."""
    layout = Layout.concat([Layout.raster((1, 3, 3))] * 3)
    tiles = [Image.new("RGB", (12, 12), color) for color in ("red", "green", "blue")]
    shown = canvas(sample_image(), layout, full_view((60, 40)), tiles)
    assert [raster.tokens.size for raster in shown.rasters] == [0, 9, 9, 9]
    assert len(shown.boxes(BOX)) == 1
    places = [raster.place for raster in shown.rasters]
    assert len({place[:2] for place in places}) == 4
    with pytest.raises(UnsupportedError, match="cut the image into 2 tiles, but the model saw 3"):
        canvas(sample_image(), layout, full_view((60, 40)), tiles[:2])


def anyres() -> tuple[Any, Any]:
    family: Any = FAMILIES["llava-next"]
    side = family.tile
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=family.resolutions(),
        ),
        tokenizer=tiny_processor().tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return family.build(), processor


def test_overview_and_tiles(tmp_path: Path) -> None:
    """Both show the whole image, so that a box is drawn on both; newline tokens have no place."""
    model, processor = anyres()
    compared = make_setups(["fopru", "grid"], [0.5], ["original"], baselines=[])
    told = explain(model, processor, sample_image((60, 40)), "Where is it?", compared, true_box=BOX, rounds=0)
    assert [raster.tokens.shape for raster in told.canvas.rasters] == [(3, 3), (4, 6)]
    assert told.unpruned.kept.n_visual == 9 + 4 * 7
    assert len(told.canvas.boxes(BOX)) == 2
    kept_tokens.draw(told, tmp_path / "kept.png")
    assert np.asarray(Image.open(tmp_path / "kept.png").convert("L")).std() > 20
    assert '"rows": 4' in kept_tokens_page.page(told)


# The image.


def test_edges_lie_between_kept_and_dropped() -> None:
    assert list(edges(np.array([[True, False], [True, True]]))) == [((1, 1), (2, 1)), ((1, 0), (1, 1))]


@pytest.mark.parametrize("size", [(300, 40), (40, 300), (60, 40)])
def test_nothing_is_cut_off(size: tuple[int, int]) -> None:
    """All texts are within the figure and their own column, whatever the image's shape and their length."""
    told = explained(
        "fopru:mode=row,layer=-2,heads=max", "random", ratios=(0.5, 0.25), of=sample_image(size), true_box=BOX
    )
    object.__setattr__(told, "question", "What costs $5 and not $6, " * 12 + "w" * 200)
    object.__setattr__(told.outcomes[1], "answer", "a long answer_with_$_and_" * 9)
    sheet = kept_tokens.sheet(told)
    sheet.figure.canvas.draw()
    whole_sheet = sheet.figure.bbox
    texts = [text for text in sheet.figure.texts if text.get_text()]
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= whole_sheet.x0, text
        assert box.x1 <= whole_sheet.x1, text
        assert box.y0 >= whole_sheet.y0, text
        assert box.y1 <= whole_sheet.y1, text
    boxes = [text.get_window_extent().shrunk(0.98, 0.6) for text in texts]
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert not overlaps


def test_kept_patches_are_clear_and_dropped_ones_dark(tmp_path: Path) -> None:
    told = explained("grid", of=Image.new("RGB", (60, 60), "white"))
    sheet = kept_tokens.sheet(told)
    sheet.figure.canvas.draw()
    pixels = np.asarray(sheet.figure.canvas.buffer_rgba())[..., :3]  # pyright: ignore[reportAttributeAccessIssue]
    panel = sheet.figure.axes[2].get_window_extent()
    top, side = pixels.shape[0] - panel.y1, panel.width / 6
    for row, column in np.ndindex(6, 6):
        centre = pixels[round(top + (row + 0.5) * side), round(panel.x0 + (column + 0.5) * side)]
        assert (centre.mean() < 128) == (not told.outcomes[1].kept.left.reshape(6, 6)[row, column]), (row, column)

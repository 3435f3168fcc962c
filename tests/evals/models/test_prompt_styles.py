"""How models are asked, and how they write boxes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.files.evals import sample_image
from transformers import CLIPImageProcessor, JanusImageProcessor, LlavaImageProcessor
from transformers.models.qwen2_vl import Qwen2VLImageProcessor

from tokenprune.errors import SettingError
from tokenprune.evals.models.box_formats import BOX_FORMATS
from tokenprune.evals.models.image_view import padding, view_through
from tokenprune.evals.models.prompt_styles import STYLES, Style, style_of

GOLDEN = Path(__file__).parent / "golden_boxes.txt"
BOX = (150.0, 50.0, 225.0, 150.0)
SIZE = (300, 200)
SQUARE = {"height": 96, "width": 96}


def processor(kind: type, **settings: Any) -> Any:
    return SimpleNamespace(image_processor=kind(**settings))


SEEN = {
    "squeezed": processor(CLIPImageProcessor, size=SQUARE, crop_size=SQUARE, do_center_crop=False),
    "squeezed, cropped": processor(CLIPImageProcessor, size={"height": 120, "width": 120}, crop_size=SQUARE),
    "cropped": processor(CLIPImageProcessor, size={"shortest_edge": 96}, crop_size=SQUARE),
    "cropped more": processor(CLIPImageProcessor, size={"shortest_edge": 120}, crop_size=SQUARE),
    "padded": processor(LlavaImageProcessor, do_pad=True, size={"shortest_edge": 96}, crop_size=SQUARE),
    "padded instead": padding(processor(CLIPImageProcessor, size={"shortest_edge": 96}, crop_size=SQUARE)),
    "padded by Janus": processor(JanusImageProcessor, size=SQUARE),
    "Llava, not padded": processor(LlavaImageProcessor, size={"shortest_edge": 96}, crop_size=SQUARE),
}


@pytest.mark.parametrize("name", SEEN)
def test_boxes_are_mapped_as_the_processor_maps_images(name: str) -> None:
    """The box, in the window that the style reports, is exactly what is orange in the processed image."""
    image = sample_image(SIZE, (150, 50, 224, 149))
    options = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    pixels = SEEN[name].image_processor(image, **options)["pixel_values"][0]
    rows, columns = np.nonzero((pixels[0] > 150) & (pixels[2] < 60))
    side = pixels.shape[-1]
    fractions = columns.min() / side, rows.min() / side, (columns.max() + 1) / side, (rows.max() + 1) / side
    written = "[{:.3f}, {:.3f}, {:.3f}, {:.3f}]".format(*fractions)
    style = Style(BOX_FORMATS["llava"], view=view_through(SEEN[name]))
    assert style.read(written, SIZE) == pytest.approx(BOX, abs=4)  # a pixel of the processed image is 2 or 3 px


def test_padding_is_what_llavas_own_processor_does() -> None:
    """Its own is not what its checkpoints on the Hub name."""
    own, instead = (SEEN[name].image_processor for name in ("padded", "padded instead"))
    seen = [one(sample_image(SIZE), return_tensors="np")["pixel_values"] for one in (own, instead)]
    np.testing.assert_array_equal(*seen)
    with pytest.raises(SettingError, match=r"\(--pad\) is for processors that crop images.*shows the whole image here"):
        padding(SEEN["squeezed"])


@pytest.mark.parametrize("size", [SIZE, (37, 900), (64, 64)])
def test_qwen_counts_pixels_of_the_resized_image(size: tuple[int, int]) -> None:
    qwen = processor(Qwen2VLImageProcessor, min_pixels=56 * 56, max_pixels=28 * 28 * 40)
    _, rows, columns = qwen.image_processor(images=[sample_image(size)], return_tensors="pt")["image_grid_thw"][
        0
    ].tolist()
    style = style_of(SimpleNamespace(model_type="qwen2_5_vl"), qwen)
    assert style.view(size).size == (14 * columns, 14 * rows)
    answer = f'[{{"bbox_2d": [0, {7 * rows}, {14 * columns}, {14 * rows}], "label": "box"}}]'
    assert style.read(answer, size) == pytest.approx((0, size[1] / 2, size[0], size[1]))


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("seen", ["squeezed", "cropped more", "padded"])
def test_what_is_written_is_read_back(name: str, seen: str) -> None:
    style = Style(BOX_FORMATS[name], view=view_through(SEEN[seen]))
    for answer in (style.write(BOX, SIZE), f"It is at {style.write(BOX, SIZE)}."):
        assert style.read(answer, SIZE) == pytest.approx(BOX, abs=3)  # hundredths of 300 px


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("shikra", "The box [0.250,0.500,0.750,1.000] is there."),
        ("minigpt-v2", "<p> the box </p> {<25><50><75><100>}"),
        ("qwen-vl", "<ref>the box</ref><box>(250,500),(750,1000)</box>"),
        ("qwen2-vl", "the box(250, 500), (750, 1000)"),
        ("qwen2.5-vl", '```json\n[\n\t{"bbox_2d": [75, 100, 225, 200], "label": "the box"}\n]\n```'),
        ("qwen3-vl", '[{"bbox_2d": [250, 500, 750, 1000], "label": "the box"}]'),
        ("internvl", "<ref>the box</ref><box>[[250, 500, 750, 1000]]</box>"),
        ("glm-v", "It is at <|begin_of_box|>[[250,500,750,1000]]<|end_of_box|>."),
        ("glm-v", "<250, 500, 750, 1000>"),
        ("deepseek-vl2", "<|ref|>the box<|/ref|><|det|>[[250, 500, 750, 999]]<|/det|>"),
        ("paligemma", "<loc0512><loc0256><loc1024><loc0768> the box"),
        ("llava", "[0.25, 0.50, 0.75, 1.00]"),
    ],
)
def test_answers_as_the_models_give_them(name: str, answer: str) -> None:
    assert STYLES[name].read(answer, SIZE) == pytest.approx((75, 100, 225, 200), abs=0.25)
    assert STYLES[name].read("in the middle", SIZE) is None
    assert STYLES[name].read("", SIZE) is None


def test_prompts_and_boxes_are_golden() -> None:
    """Every style's prompt for a box, and its box, letter by letter."""
    lines = [
        "\t".join([name, style.boxes.question.format("the orange box"), style.write(BOX, SIZE)])
        for name, style in STYLES.items()
    ]
    assert lines == GOLDEN.read_text().splitlines()


def test_style_of_a_model() -> None:
    def of(**config: Any) -> Style:
        return style_of(SimpleNamespace(**config), SEEN["padded"])

    assert of(model_type="llava").boxes == BOX_FORMATS["llava"]
    assert of(model_type="qwen2_vl").boxes == BOX_FORMATS["qwen2-vl"]
    assert of(model_type="glm4v_moe").boxes == BOX_FORMATS["glm-v"]
    assert of(model_type="qwen3_5_moe").boxes == BOX_FORMATS["qwen3-vl"]
    bundled = of(model_type="llava", prompt_style="bundled")
    assert bundled.boxes == BOX_FORMATS["bundled"]
    assert not bundled.instructions
    assert style_of(SimpleNamespace(model_type="llava"), SEEN["padded"], "shikra").boxes == BOX_FORMATS["shikra"]
    with pytest.raises(ValueError, match=r"unknown prompt style 'shikr'\. Did you mean 'shikra'"):
        style_of(SimpleNamespace(model_type="llava"), SEEN["padded"], "shikr")


# Boxes in generated text.


@pytest.mark.parametrize(
    ("name", "answer", "box"),
    [
        ("bundled", "12 34 56 78", (0.125, 0.345, 0.565, 0.785)),
        ("bundled", "05 07 05 07", (0.055, 0.075, 0.055, 0.075)),
        ("bundled", "At 12 34 56 78.", (0.125, 0.345, 0.565, 0.785)),
        ("bundled", "12 34 56 78 90", None),  # five numbers: which four?
        ("bundled", "12 34 56 780", None),
        ("bundled", "12 34 56", None),
        ("bundled", "56 34 12 78", None),  # swapped corners
        ("bundled", "on the left", None),
        ("llava", "[0.12, 0.34, 0.56, 0.78]", (0.12, 0.34, 0.56, 0.78)),
        ("llava", "[0,0.5,1.0,1]", (0.0, 0.5, 1.0, 1.0)),
        ("llava", "[0.56, 0.34, 0.12, 0.78]", None),
        ("llava", "[12, 34, 56, 78]", None),
        ("llava", "[1.5, 0.2, 1.7, 0.3]", None),
        ("qwen-vl", "(0,0),(999,333)</box>", (0, 0, 1, 1 / 3)),  # divided as in its own script
        ("qwen2-vl", "(0,0),(1000,500)", (0, 0, 1, 0.5)),
        ("minigpt-v2", "<unk> {<12> <34> <56><78>}", (0.12, 0.34, 0.56, 0.78)),
        ("minigpt-v2", "{<12><34><56>}", None),
        ("glm-v", "[12, 34, 56, 78", None),
        ("shikra", "Answer: [0.120,0.340,0.560,0.780] .", (0.12, 0.34, 0.56, 0.78)),
    ],
)
def test_boxes_are_read_from_answers(name: str, answer: str, box: tuple[float, ...] | None) -> None:
    assert BOX_FORMATS[name].fractions(answer, (60, 40)) == (None if box is None else pytest.approx(box))


@pytest.mark.parametrize("name", BOX_FORMATS)
def test_a_box_at_the_edges_is_written_as_the_format_reads_it(name: str) -> None:
    box_format, whole = BOX_FORMATS[name], (0.0, 0.0, 1.0, 1.0)
    assert box_format.fractions(box_format.write(whole, (60, 40)), (60, 40)) == pytest.approx(whole, abs=0.01)


def test_paligemma_has_no_token_for_the_far_side() -> None:
    assert BOX_FORMATS["paligemma"].write((0.0, 0.5, 1.0, 1.0), (60, 40)) == "<loc0512><loc0000><loc1023><loc1023>"

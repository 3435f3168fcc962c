"""Boxes in generated text."""

import pytest

from tokenprune.evals.models.box_formats import BOX_FORMATS


@pytest.mark.parametrize(
    ("name", "answer", "box"),
    [
        ("bundled", "12 34 56 78", (0.125, 0.345, 0.565, 0.785)),
        ("bundled", "0 0 99 99", (0.005, 0.005, 0.995, 0.995)),
        ("bundled", "05 07 05 07", (0.055, 0.075, 0.055, 0.075)),
        ("bundled", "At 12 34 56 78.", (0.125, 0.345, 0.565, 0.785)),
        ("bundled", "12 34 56 78 90", None),  # five numbers: which four?
        ("bundled", "112 34 56 78", None),
        ("bundled", "12 34 56 780", None),
        ("bundled", "12 34 56", None),
        ("bundled", "56 34 12 78", None),  # swapped corners
        ("bundled", "", None),
        ("bundled", "on the left", None),
        ("llava", "[0.12, 0.34, 0.56, 0.78]", (0.12, 0.34, 0.56, 0.78)),
        ("llava", "[0,0.5,1.0,1]", (0.0, 0.5, 1.0, 1.0)),
        ("llava", "[0.56, 0.34, 0.12, 0.78]", None),
        ("llava", "[0.1, 0.2, 0.3]", None),
        ("llava", "[12, 34, 56, 78]", None),
        ("llava", "[1.5, 0.2, 1.7, 0.3]", None),
        ("qwen-vl", "(0,0),(999,333)</box>", (0, 0, 1, 1 / 3)),  # divided as in its own script
        ("qwen2-vl", "(0,0),(1000,500)", (0, 0, 1, 0.5)),
        ("minigpt-v2", "<unk> {<12> <34> <56><78>}", (0.12, 0.34, 0.56, 0.78)),
        ("minigpt-v2", "{<12><34><56>}", None),
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

"""Boxes in generated text."""

import pytest

from tokenprune.evals.boxes import in_pixels, iou, parse_box


@pytest.mark.parametrize(
    ("answer", "box"),
    [
        ("12 34 56 78", (0.125, 0.345, 0.565, 0.785)),
        ("0 0 99 99", (0.005, 0.005, 0.995, 0.995)),
        ("05 07 05 07", (0.055, 0.075, 0.055, 0.075)),
        ("At 12 34 56 78.", (0.125, 0.345, 0.565, 0.785)),
        ("12 34 56 78 90", None),  # five numbers: which four?
        ("112 34 56 78", None),
        ("12 34 56 780", None),
        ("12 34 56", None),
        ("56 34 12 78", None),  # swapped corners
        ("", None),
        ("on the left", None),
        ("[0.12, 0.34, 0.56, 0.78]", (0.12, 0.34, 0.56, 0.78)),
        ("[0,0.5,1.0,1]", (0.0, 0.5, 1.0, 1.0)),
        ("[0.56, 0.34, 0.12, 0.78]", None),
        ("[0.1, 0.2, 0.3]", None),
        ("[12, 34, 56, 78]", None),
        ("[1.5, 0.2, 1.7, 0.3]", None),
    ],
)
def test_parse(answer: str, box: tuple[float, ...] | None) -> None:
    assert parse_box(answer) == (None if box is None else pytest.approx(box))


def test_iou() -> None:
    assert iou((0.0, 0.0, 2.0, 2.0), (0.0, 0.0, 2.0, 2.0)) == 1
    assert iou((0.0, 0.0, 2.0, 2.0), (1.0, 0.0, 3.0, 2.0)) == pytest.approx(1 / 3)
    assert iou((0.0, 0.0, 1.0, 1.0), (2.0, 2.0, 3.0, 3.0)) == 0


def test_pixels_are_width_then_height() -> None:
    assert in_pixels((0.1, 0.2, 0.5, 1.0), (200, 100)) == pytest.approx((20, 20, 100, 100))

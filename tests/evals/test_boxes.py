"""How boxes overlap, and boxes in a window."""

import pytest

from tokenprune.evals.boxes import iou, within


def test_iou() -> None:
    assert iou((0.0, 0.0, 2.0, 2.0), (0.0, 0.0, 2.0, 2.0)) == 1
    assert iou((0.0, 0.0, 2.0, 2.0), (1.0, 0.0, 3.0, 2.0)) == pytest.approx(1 / 3)
    assert iou((0.0, 0.0, 1.0, 1.0), (2.0, 2.0, 3.0, 3.0)) == 0


def test_fractions_of_a_window() -> None:
    assert within((0.0, 0.0, 200.0, 100.0), (0.1, 0.2, 0.5, 1.0)) == pytest.approx((20, 20, 100, 100))
    assert within((0.0, -50.0, 200.0, 150.0), (0.0, 0.25, 1.0, 0.75)) == pytest.approx((0.0, 0.0, 200.0, 100.0))

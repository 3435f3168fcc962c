"""What every strategy declares."""

from __future__ import annotations

import pytest

from tokenprune import FastV, FoPru, Grid, Mosaic


def test_a_part_has_a_count_of_its_own() -> None:
    """A tile treats its share as an image's budget. Later pruning counts all tokens, whatever enters."""
    assert Grid(budget_per="tile").for_part(3, 12) == Grid(keep=3)
    assert FoPru(keep=9, layer=-2, budget_per="tile").for_part(3, 12) == FoPru(keep=3, layer=-2)
    later = FastV(keep_ratio=0.5)
    assert later.for_part(3, 12) is later


def test_who_reads_the_grid_requires_it() -> None:
    assert Grid().required_statistics == {"grid"}
    assert Mosaic().required_statistics == {"grid", "vision_attention"}
    assert FoPru().required_statistics == {"vision_attention"}


@pytest.mark.usefixtures("unchecked")
def test_a_ratio_is_a_float() -> None:
    """Even if a settings file has the whole number 1."""
    ratio = Grid(keep_ratio=1).keep_ratio
    assert isinstance(ratio, float)
    assert repr(Grid(keep_ratio=1)) == "Grid(keep_ratio=1.0)"

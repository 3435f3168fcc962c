"""Every point of the search box is a VFlowOpt that spends exactly the budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tokenprune import SettingError
from tokenprune.evals.search.space import SearchSpace
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.tokens import Layout
from tokenprune.tokens.cells import grid_cells


def box_of(keep_ratio: float, n_layers: int = 28, **settings: Any) -> SearchSpace:
    return SearchSpace(VFlowOpt(keep_ratio=keep_ratio, **settings), n_layers, 27, 45.0)


def shares(strategy: VFlowOpt, n_layers: int) -> tuple[float, float, float]:
    second, third = strategy.stages(n_layers)
    assert second.keep_ratio is not None
    assert third.keep_ratio is not None
    return strategy.entering, second.keep_ratio, third.keep_ratio


@pytest.mark.parametrize("n_layers", [3, 5, 6, 28, 32])
@pytest.mark.parametrize("keep_ratio", [0.02, 0.1, 0.25, 0.5, 0.7, 0.9])
def test_every_point_spends_the_budget(keep_ratio: float, n_layers: int) -> None:
    box, third = box_of(keep_ratio, n_layers), n_layers // 3
    for first in (0.0, 0.3, 1.0):
        for place in (0.0, 0.5, 1.0):
            low, high = box.sides["first"]
            point = {"first": low + first * (high - low), "second_place": place, "threshold": 9.0}
            one, two, three = shares(box.strategy(point), n_layers)
            average = ((one + two) * third + three * (n_layers - 2 * third)) / n_layers
            assert average == pytest.approx(keep_ratio)
            assert 1 >= one >= two - 1e-9 >= three - 2e-9
            assert three >= 0.1 * keep_ratio - 1e-9


def test_the_box_reaches_as_far_as_the_papers() -> None:
    box = box_of(0.25)
    assert box.sides == {
        "threshold": (0, 45), "first": (0.25, 0.375), "second_place": (0, 1), "alpha": (-1, 1), "cell": (1, 27)
    }  # fmt: skip
    corner = box.strategy({"first": 0.375, "second_place": 1.0, "threshold": 50.0, "alpha": 0.0, "cell": 3.0})
    assert shares(corner, 28) == pytest.approx((0.375, 0.375, 0.025))


@pytest.mark.parametrize(
    ("keep_ratio", "first", "second"), [(0.5, 0.7233, 0.7487), (0.25, 0.2651, 0.9833), (0.1, 0.1166, 1.0)]
)
def test_released_settings_are_points(keep_ratio: float, first: float, second: float) -> None:
    box = box_of(keep_ratio)
    released = replace(box.base, first=first, second=second, threshold=34.76, cell=15.581)
    found = box.strategy(box.point(released))
    assert (found.first, found.second) == pytest.approx((first, second))
    assert (found.threshold, found.cell, found.alpha) == (34.76, 15.581, 0.0)


@pytest.mark.parametrize("keep_ratio", [0.02, 0.1, 0.5, 0.95])
def test_the_default_is_a_point(keep_ratio: float) -> None:
    box = box_of(keep_ratio)
    point = box.point(box.base)
    assert all(low <= point[name] <= high for name, (low, high) in box.sides.items())
    assert box.strategy(point).entering == pytest.approx(box.base.entering)
    assert point["cell"] == 13.5


def test_a_cell_of_one_token_merges_nothing() -> None:
    """It is the lower end of the range, because the best cells of a small grid can be that small."""
    box = replace(box_of(0.25), grid_side=2)
    assert box.sides["cell"] == (1, 2)
    lowest = box.strategy(box.point(replace(box.base, cell=1.0)))
    assert lowest.cell is not None
    assert lowest.cell == 1.0
    cells, n_cells = grid_cells(Layout.raster((1, 2, 2)), lowest.cell)
    assert n_cells == len(set(cells.tolist())) == 4


def test_what_lies_outside_is_drawn_in() -> None:
    box = SearchSpace(VFlowOpt(keep_ratio=0.1), 28, 6, 2.5)
    assert box.point(box.base)["threshold"] == 2.5  # either has no anchor


def test_what_the_base_leaves_out_is_not_searched() -> None:
    assert set(box_of(0.1, progressive=False).sides) == {"threshold", "alpha", "cell"}
    assert set(box_of(0.1, recycle=False).sides) == {"threshold", "alpha", "first", "second_place"}
    assert "alpha" not in replace(box_of(0.1), colors=False).sides
    assert "cell" not in replace(box_of(0.1), grid_side=1).sides
    flat = box_of(0.1, progressive=False).strategy({"threshold": 1.0, "alpha": 0.0, "cell": 2.0})
    assert (flat.entering, flat.stages(28)) == (0.1, ())


def test_boxes_that_hold_nothing() -> None:
    with pytest.raises(SettingError, match="keep_ratio=1 keeps everything"):
        box_of(1.0)
    with pytest.raises(SettingError, match="2 layers has no thirds"):
        box_of(0.5, 2)
    box_of(0.5, 2, progressive=False)

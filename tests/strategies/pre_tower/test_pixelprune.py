"""PixelPrune against grids computed by hand, and against its definition, token by token."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tokenprune import PixelPrune, PruningError
from tokenprune.engine.tower.patches import selected_patches
from tokenprune.strategies.pre_tower.pixelprune import anchored_errors, exact_errors, prediction_errors
from tokenprune.tokens import PatchTokens

PAGE = """
    aaaaaa
    abbbba
    abcbba
    abbbba
    aaaaaa
"""


def colors(page: str) -> Tensor:
    """Return (1, rows, columns, 2), with one colour per letter, ten of which are 0.1 apart."""
    rows = [[(ord(letter) - ord("a")) / 10 for letter in line] for line in page.split()]
    return torch.tensor(rows)[None, :, :, None].repeat(1, 1, 1, 2)


def kept(page: str, strategy: PixelPrune) -> list[tuple[int, int]]:
    grid = colors(page)
    tokens = PatchTokens(grid.flatten(0, 2), tuple(grid.shape[:3]))  # type: ignore[arg-type]
    places = strategy.select_patches(tokens).kept
    return [divmod(int(place), grid.shape[2]) for place in places]


def test_a_box_costs_its_corners() -> None:
    """Edges along rows are predicted from the left, edges along columns from above, so only the corners of a box on a
    flat surface are kept, and the tokens next to them."""
    left = kept(PAGE, PixelPrune())
    assert left == [(0, 0), (1, 1), (1, 5), (2, 2), (2, 3), (3, 2), (4, 1)]


def by_definition(grid: Tensor, threshold: float, metric: Any) -> list[bool]:
    """Return which tokens of one frame are kept, computed token by token."""

    def alike(one: Tensor, other: Tensor) -> bool:
        difference = (one - other).abs()
        measured = {"max": difference.max(), "mae": difference.mean(), "rmse": (difference**2).mean() ** 0.5}
        return bool(measured[metric] <= threshold)

    known, found = grid.clone(), []
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            if row == column == 0:
                found.append(True)
                continue
            prediction = known[row, column - 1] if column else known[row - 1, column]
            if row and column:
                corner, above = known[row - 1, column - 1], known[row - 1, column]
                if alike(corner, prediction) and not alike(corner, above):
                    prediction = above
            predicted = alike(grid[row, column], prediction)
            known[row, column] = prediction if predicted else grid[row, column]
            found.append(not predicted)
    return found


@pytest.mark.parametrize("metric", ["max", "mae", "rmse"])
@pytest.mark.parametrize("threshold", [0.0, 0.04, 0.11])
@pytest.mark.parametrize("seed", range(4))
def test_the_definition(metric: Any, threshold: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = [(6, 9), (1, 8), (7, 1), (5, 5)][seed]
    grid = torch.randint(0, 3, (2, rows, columns, 1), generator=generator) / 10
    grid = (grid + 0.05 * torch.rand(2, rows, columns, 3, generator=generator)).round(decimals=2)
    if threshold == 0.0:
        grid = grid.round(decimals=1)
    expected = [by_definition(frame, threshold, metric) for frame in grid]
    found = prediction_errors(grid, threshold, metric) > threshold
    assert found.flatten(1).tolist() == expected
    assert sum(map(sum, expected)) > 2


@pytest.mark.parametrize("metric", ["max", "mae", "rmse"])
def test_what_differs_by_the_threshold_is_alike(metric: Any) -> None:
    """Colours are quarters, exactly: many errors are the threshold itself. The pixels stay as they are."""
    grid = torch.randint(0, 4, (1, 12, 12, 1), generator=torch.Generator().manual_seed(0)) / 4
    before = grid.clone()
    found = prediction_errors(grid, 0.25, metric) > 0.25
    assert found.flatten().tolist() == by_definition(grid[0], 0.25, metric)
    assert torch.equal(grid, before)


def test_a_corner_that_differs_from_above_by_the_threshold_is_like_it() -> None:
    """So the last token is predicted by the one on its left, which it differs from by the threshold, too."""
    grid = torch.tensor([[0.25, 0.75], [0.25, 0.0], [0.25, 0.5]])[None, :, :, None]
    assert (prediction_errors(grid, 0.25) > 0.25)[0].tolist() == [[True, True], [False, True], [False, False]]


def test_both_ways_agree_without_a_threshold() -> None:
    grid = torch.randint(0, 2, (3, 8, 7, 2), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(exact_errors(grid, "max"), anchored_errors(grid, 0.0, "max"))


def test_errors_do_not_add_up() -> None:
    """Each step of a slope is within the threshold, and every second one is kept."""
    assert kept("abcdefg", PixelPrune(threshold=0.1001)) == [(0, 0), (0, 2), (0, 4), (0, 6)]
    assert kept("abcdefg", PixelPrune(threshold=0.05)) == [(0, i) for i in range(7)]


@pytest.mark.parametrize(("metric", "left"), [("max", [0, 1]), ("rmse", [0, 1]), ("mae", [0])])
def test_the_metric_decides(metric: Any, left: list[int]) -> None:
    """Of errors of 0.2 and 0, the root mean square is 0.14 and the mean 0.1."""
    tokens = PatchTokens(torch.tensor([[0.0, 0.0], [0.2, 0.0]]), (1, 1, 2))
    assert PixelPrune(threshold=0.12, metric=metric).select_patches(tokens).kept.tolist() == left


def test_a_bound_keeps_what_is_predicted_worst() -> None:
    page = "aaj aaf aaa"
    assert kept(page, PixelPrune()) == [(0, 0), (0, 2), (1, 2), (2, 2)]
    assert kept(page, PixelPrune(keep=3)) == [(0, 0), (0, 2), (2, 2)]  # errors 1, 0.9, 0.4 and 0.5
    assert kept(page, PixelPrune(keep_ratio=0.1)) == [(0, 0)]


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_of_a_blank_page_the_first_token_is_left(threshold: float) -> None:
    assert kept("bbb bbb", PixelPrune(threshold=threshold)) == [(0, 0)]


def test_the_first_token_has_the_highest_error_of_all() -> None:
    """Also where colours exceed 1."""
    pixels = torch.tensor([[0.0, 0.5, 0.5], [0.0, 3.0, 3.0]])[:, None, :, None]
    assert prediction_errors(pixels, 0.0).flatten().tolist() == [3.0, 0.5, 0.0, 3.0, 3.0, 0.0]


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_colours_that_are_no_numbers(threshold: float) -> None:
    tokens = PatchTokens(torch.full((6, 2), torch.nan), (1, 2, 3))
    with pytest.raises(PruningError, match=r"^PixelPrune\.select_patches: what it was given has NaN"):
        selected_patches(PixelPrune(threshold=threshold), tokens)


def test_by_default_no_bound() -> None:
    assert PixelPrune() == PixelPrune(keep_ratio=1.0)
    assert PixelPrune(keep=3).keep_ratio is None

"""Stages with a given average over the decoder layers, by hand."""

import pytest

from tokenprune import SettingError
from tokenprune.strategy import Stage
from tokenprune.strategy.stage import geometric_stages, layers_at, powered_stages


@pytest.mark.parametrize(
    ("shares", "n_layers", "expected"),
    [
        ((0.25, 0.5, 0.75), 32, [8, 16, 24]),
        ((0.3, 0.6), 9, [3, 5]),  # 2.7 and 5.4
        ((0.0, 1.0), 4, [1, 3]),  # neither the first layer nor one after the last
        ((0.25, 0.5, 0.75), 2, [1]),
        ((0.5,), 1, []),
    ],
)
def test_layers_at_shares_of_the_depth(shares: tuple[float, ...], n_layers: int, expected: list[int]) -> None:
    assert layers_at(shares, n_layers) == expected


def shares_of(stages: tuple[Stage, ...]) -> list[float]:
    return [stage.keep_ratio or 0.0 for stage in stages]


def test_each_stage_keeps_the_same_share_of_the_rest() -> None:
    """Of ten layers, 2 with all, 4 with a half and 4 with a quarter are half of all."""
    stages = geometric_stages("Mine", [2, 6], 10, 0.5)
    assert [stage.layer for stage in stages] == [2, 6]
    assert shares_of(stages) == pytest.approx([0.5, 0.25])
    assert geometric_stages("Mine", [], 1, 1.0) == ()
    assert shares_of(geometric_stages("Mine", [2, 6], 10, 1.0)) == pytest.approx([1.0, 1.0])


def test_a_schedule_is_raised_to_a_power() -> None:
    """Of ten layers, 2 with all, 4 with a half and 4 with a fifth average 0.48; squared, 0.316."""
    own = powered_stages("Mine", [2, 6], [0.5, 0.2], 10, 0.48)
    assert shares_of(own) == [0.5, 0.2]
    assert shares_of(powered_stages("Mine", [2, 6], [0.5, 0.2], 10, 0.316)) == pytest.approx([0.25, 0.04])
    for average in (0.25, 0.475, 0.485, 0.9):
        first, second = shares_of(powered_stages("Mine", [2, 6], [0.5, 0.2], 10, average))
        assert (2 + 4 * first + 4 * second) / 10 == pytest.approx(average)
        assert second < first


def test_layers_that_a_model_does_not_have_are_left_for_patch() -> None:
    assert [stage.layer for stage in geometric_stages("Mine", [2, 9], 4, 0.5)] == [2, 9]
    assert powered_stages("Mine", [2, 9], [0.5, 0.2], 4, 0.1) == (Stage(2, 0.5), Stage(9, 0.2))


@pytest.mark.parametrize("average", [0.2, 0.1])
def test_an_average_that_the_first_layers_use_up(average: float) -> None:
    for make in (
        lambda: geometric_stages("Mine", [2, 6], 10, average),
        lambda: powered_stages("Mine", [2, 6], [0.5, 0.2], 10, average),
    ):
        with pytest.raises(SettingError, match=r"Mine: keep_ratio=0\.. is an average over 10 layers, and the 2 before"):
            make()

"""Which decoder layers are skipped."""

from __future__ import annotations

import pytest

from tokenprune import PAR, SettingError


@pytest.mark.parametrize(
    ("skip", "expected"), [(0, ()), (2, (4, 5)), (4, (2, 3, 4, 5)), ((), ()), ((2, 5), (2, 5)), ([3], (3,))]
)
def test_by_number_or_the_last_but_two(skip: int | tuple[int, ...] | list[int], expected: tuple[int, ...]) -> None:
    assert PAR(skip=skip).skipped_layers(8) == expected


@pytest.mark.parametrize("skip", [5, 10**12, (1,), (6,), (7,), (2, 8)])
def test_the_ends_are_never_skipped(skip: int | tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match=r"PAR: skip=.* reaches into the first or last 2 of 8 .*choose from 2\.\.5"):
        PAR(skip=skip).skipped_layers(8)
    with pytest.raises(SettingError, match="this model has no others"):
        PAR(skip=1).skipped_layers(4)


def test_a_list_is_a_tuple() -> None:
    """So that strategies from settings files too can be compared and used as keys."""
    assert {PAR(skip=[2, 3]): 1}[PAR(skip=(2, 3))] == 1

"""AdaToken: the budgets of its schedule."""

from typing import Any

import pytest

from tokenprune import AdaToken, SettingError
from tokenprune.strategies import make, parse

SCHEDULE = ((8, 0.8), (16, 0.5), (24, 0.25))


def shares(strategy: AdaToken, n_layers: int = 32) -> list[tuple[int, float]]:
    return [(stage.layer, round(stage.keep_ratio or 0, 6)) for stage in strategy.stages(n_layers)]


def test_the_schedules_own_average_changes_nothing() -> None:
    """(1 + .8 + .5 + .25) / 4."""
    assert shares(AdaToken(keep_ratio=0.6375)) == list(SCHEDULE)
    assert shares(AdaToken(keep_ratio=0.6375, schedule=SCHEDULE)) == list(SCHEDULE)


def test_a_power_of_two_by_hand() -> None:
    """Squared, the shares are .64, .25 and .0625, with an average of .488125."""
    assert shares(AdaToken(keep_ratio=(1 + 0.64 + 0.25 + 0.0625) / 4)) == [(8, 0.64), (16, 0.25), (24, 0.0625)]


@pytest.mark.parametrize("n_layers", [8, 24, 32])
def test_the_default_is_the_released_schedule(n_layers: int) -> None:
    strategy = AdaToken()
    assert strategy.keep_ratio == 0.6375
    assert [stage.keep_ratio for stage in strategy.stages(n_layers)] == pytest.approx([0.8, 0.5, 0.25])
    assert repr(AdaToken(keep_ratio=0.25)) == "AdaToken(keep_ratio=0.25)"
    assert [stage.layer for stage in strategy.stages(80)] == [20, 40, 60]


def test_keeping_all_has_stages_that_keep_all() -> None:
    assert {share for _, share in shares(AdaToken(keep_ratio=1.0))} == {1.0}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "schedule",
    [
        (),
        ((0, 0.5),),
        ((2, 0.0),),
        ((2, 1.0),),
        ((2, 0.5), (2, 0.2)),
        ((4, 0.5), (2, 0.2)),
        ((2, 0.2), (4, 0.5)),
        ((8.7, 0.5),),
        ((True, 0.5),),
        (("8", 0.5),),
        ((float("inf"), 0.5),),
        ((float("nan"), 0.5),),
        ((8, 10**400),),
        ((8, 0.5, 0.2),),
        0.95,
    ],
)
def test_schedules_that_cannot_be(schedule: Any) -> None:
    with pytest.raises(SettingError, match=r"AdaToken: schedule=.* is not a list of decoder layers"):
        AdaToken(keep_ratio=0.5, schedule=schedule)


def test_a_model_of_one_layer_has_no_stages() -> None:
    """Its only layer sees every visual token, whatever the average."""
    with pytest.raises(SettingError, match=r"AdaToken: keep_ratio=0.5 is an average over 1 layers, and the 1 before"):
        AdaToken(keep_ratio=0.5).stages(1)
    assert AdaToken(keep_ratio=1.0).stages(1) == ()


def test_a_schedule_from_a_command_or_a_file() -> None:
    assert parse("adatoken:schedule=((2,0.8),(4,0.5))", keep_ratio=0.7) == AdaToken(
        keep_ratio=0.7, schedule=((2, 0.8), (4, 0.5))
    )
    assert make("adatoken", keep_ratio=0.7, schedule=[[2.0, 0.8], [4, 0.5]]) == AdaToken(
        keep_ratio=0.7, schedule=((2, 0.8), (4, 0.5))
    )

"""VFlowOpt's three stages: what enters, what is left in each third, and settings that cannot give the average."""

import pytest

from tokenprune import SettingError
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt


@pytest.mark.parametrize(
    ("ratio", "first", "second", "last"),
    [(0.5, 0.7233, 0.7487, 0.4870), (0.25, 0.2651, 0.9833, 0.8773), (0.1, 0.1166, 1.0, 0.6011)],
)
def test_the_released_schedules(ratio: float, first: float, second: float, last: float) -> None:
    strategy = VFlowOpt(keep_ratio=ratio, first=first, second=second)
    assert strategy.last(28) == pytest.approx(last, abs=0.015)  # they average 0.501, 0.251, 0.100
    assert [stage.layer for stage in strategy.stages(28)] == [9, 18]
    assert [stage.layer for stage in strategy.stages(32)] == [10, 20]
    middle, end = (stage.keep_ratio for stage in strategy.stages(28))
    assert middle == pytest.approx(first * second)
    assert end == pytest.approx(first * second * strategy.last(28))


def test_the_same_share_throughout() -> None:
    """Even if rounding gives a last share slightly above 1."""
    shares = []
    for n_layers in (3, 7, 28, 32):
        for percent in range(1, 101):
            strategy = VFlowOpt(keep_ratio=percent / 100, first=percent / 100)
            shares += [strategy.last(n_layers), *(stage.keep_ratio for stage in strategy.stages(n_layers)[1:])]
            assert shares[-2] == pytest.approx(1.0)
            assert shares[-1] == pytest.approx(percent / 100)
    assert max(shares) <= 1.0


def test_a_part_has_the_share_that_it_is_given() -> None:
    """A tile with a budget of its own: 7 of 20 enter, not 1.15 times as many."""
    for strategy in (VFlowOpt(budget_per="tile"), VFlowOpt(first=0.4, budget_per="tile"), VFlowOpt(progressive=False)):
        part = strategy.for_part(7, 20)
        assert part.budget(20) == 7
        assert part.budget_per == "image"


def test_what_is_not_read_is_not_needed() -> None:
    assert VFlowOpt().needs == {"vision_attention"}
    assert VFlowOpt(alpha=-0.5).needs == {"vision_attention", "colors"}
    assert VFlowOpt().reads_grid
    assert not VFlowOpt(recycle=False).reads_grid


def test_settings_that_cannot_be() -> None:
    infinite = ({"alpha": float("inf")}, {"threshold": -float("inf")})
    for settings in ({"first": 0.0}, {"second": 1.5}, {"cell": 0.5}, {"keep": 64}, *infinite):
        with pytest.raises(SettingError, match=rf"VFlowOpt: {next(iter(settings))}"):
            VFlowOpt(**settings)  # type: ignore[arg-type]
    for first, n_layers in ((0.5, 28), (0.375, 3)):  # of three layers, two with .375 leave nothing for the last
        with pytest.raises(SettingError, match="use up an average"):
            VFlowOpt(keep_ratio=0.25, first=first).stages(n_layers)
    with pytest.raises(SettingError, match=r"keep fewer tokens than an average of 0\.25 needs"):
        VFlowOpt(keep_ratio=0.25, first=0.11).stages(28)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_too_few_layers_for_its_stages(n_layers: int) -> None:
    """What enters would stay in all layers: more or less than the requested average."""
    for first in (None, 0.4, 0.1):
        with pytest.raises(SettingError, match=rf"of {n_layers} layers has no thirds .* Write progressive=False\."):
            VFlowOpt(keep_ratio=0.25, first=first).stages(n_layers)
    for exact in (VFlowOpt(keep_ratio=0.25, progressive=False), VFlowOpt(keep_ratio=1.0)):
        assert exact.stages(n_layers) == ()
        assert exact.budget(100) == 100 * (exact.keep_ratio or 0)


def test_what_enters_by_default_is_a_little_more_than_the_average() -> None:
    """So that all three stages keep about as many, as in the released settings for 25 and 10 %."""
    assert [VFlowOpt(keep_ratio=ratio).budget(10_000) for ratio in (0.1, 0.25, 0.9)] == [1150, 2875, 10_000]

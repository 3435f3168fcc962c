"""The plan of all tables: what is measured."""

from __future__ import annotations

import pytest
from helpers.tiny import ON_LLAVA

from tokenprune.evals.dev.measure.__main__ import main
from tokenprune.evals.dev.measure.plan import BOTH, PRUNED, RATIOS, STRATEGIES, UNPRUNED, VARIED, planned
from tokenprune.evals.dev.measure.steps import steps


def test_what_llava_cannot_be_pruned_with_is_left_out() -> None:
    assert {strategy.split(":")[0] for strategy in STRATEGIES} <= set(ON_LLAVA)


def test_the_plan_has_what_was_promised() -> None:
    first = PRUNED[0]
    assert (first.ratios, first.position_ids) == (RATIOS, BOTH)
    assert first.questions is not None
    assert first.questions >= 400
    assert {part.grid for part in UNPRUNED if part.data == "scenes"} >= {(8, 8), None, (24, 24)}
    assert len({part.name for part in (*PRUNED, VARIED)}) == len(PRUNED) + 1


def test_a_run_may_be_of_some_keep_ratios() -> None:
    assert planned() == [*UNPRUNED, *PRUNED, VARIED]
    some = planned([0.25, 0.1])
    assert {part.ratios for part in some} == {(0.25, 0.1)}
    assert [part.name for part in some] == [part.name for part in (*PRUNED, VARIED)]
    assert [part.name for part in planned([0.05])] == [part.name for part in PRUNED if 0.05 in part.ratios]
    assert planned([1.0]) == [*UNPRUNED]
    whole, half = PRUNED[0], planned([0.5])[0]
    names = [{step.name for step in steps(part, [])} for part in (whole, half)]
    assert names[1] == {"scenes/unpruned", "scenes/50"} < names[0]


@pytest.mark.parametrize("wrong", [("--ratios", "0.3"), ("--parts", "sences")])
def test_what_is_not_planned_is_refused(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(wrong)
    assert f"{wrong[0]}: {wrong[1]} is not in the plan, which has" in capsys.readouterr().err

"""The plan of all measurements, its committed rows, and what is judged by them."""

import json

import pytest

from tokenprune.evals.dev.measure.__main__ import main
from tokenprune.evals.dev.measure.plan import Part, planned
from tokenprune.evals.dev.measure.steps import steps
from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.models.bundled import BUNDLED
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.results_io import read


@pytest.mark.parametrize("wrong", [("--ratios", "0.3"), ("--parts", "sences")])
def test_what_is_not_planned_is_refused(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(wrong)
    assert f"{wrong[0]}: {wrong[1]} is not in the plan, which has" in capsys.readouterr().err


# The committed rows were measured with the plan's current settings, or nothing could resume from them.


SETTINGS = sorted((BUNDLED / "settings").glob("*.json"))


@pytest.mark.parametrize("part", planned(), ids=lambda part: f"{part.name}-{len(part.ratios)}")
def test_rows_have_the_settings_of_the_plan(part: Part) -> None:
    for step in steps(part, SETTINGS):
        rows = stored(step.name)
        for strategy in step.strategies if rows else ():
            for setup in step.setups(strategy):
                settings = json.loads(json.dumps(setup.settings()))
                assert [row.key for row in rows if row.key == setup.key and row.settings != settings] == []


def stored(name: str) -> list[TaskResult]:
    file = RESULTS / "accuracy" / f"{name}.jsonl"
    return read([file]) if file.is_file() else []

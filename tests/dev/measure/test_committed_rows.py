"""The committed rows were measured with the plan's current settings, or nothing could resume from them."""

from __future__ import annotations

import json

import pytest

from tokenprune.evals.dev.measure.plan import Part, planned
from tokenprune.evals.dev.measure.steps import steps
from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.models.bundled import BUNDLED
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.results_io import read

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

"""The plan of all measurements, its committed rows, and what is judged by them."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.files.rows import row

from tokenprune.evals.dev.measure.__main__ import main
from tokenprune.evals.dev.measure.plan import Part, planned
from tokenprune.evals.dev.measure.steps import steps
from tokenprune.evals.dev.measure.stored import StoredRows
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


# Published findings, judged on constructed rows.


def scored(right: int, of: int = 400) -> list[float]:
    return [float(number < right) for number in range(of)]


def line(text: str, *begin: str) -> str:
    (found,) = [one for one in text.splitlines() if one.startswith("| " + " | ".join(begin))]
    return found


def pruned(strategy: str, ratio: float, rec: int, vqa: int, ids: str = "original", **changes: Any) -> list[TaskResult]:
    return [
        row(strategy, ids, ratio, {"val": scored(right)}, task=task, **changes)
        for task, right in (("rec", rec), ("vqa", vqa))
    ]


def test_judging_reads_stored_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, runs = tmp_path / "rows", tmp_path / "runs"
    StoredRows(rows / "unpruned" / "scenes.jsonl", {}).add(pruned("unpruned", 1.0, 380, 380))
    StoredRows(rows / "scenes" / "unpruned.jsonl", {}).add(pruned("unpruned", 1.0, 380, 380))
    StoredRows(rows / "scenes" / "25.jsonl", {}).add(pruned("FoPru rank -2", 0.25, 300, 372))
    main(["--judge", "--output", str(rows), "--runs", str(runs)])
    text = capsys.readouterr().out
    assert line(text, "FoPru loses at most 3% of VQA at 25 %", "97.9")
    assert (runs / "verdicts.md").read_text() == text

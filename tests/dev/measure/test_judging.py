"""Published findings, judged on constructed rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.files.rows import row

from tokenprune.evals.dev.measure.__main__ import main
from tokenprune.evals.dev.measure.directions import Verdict, above, directions
from tokenprune.evals.dev.measure.stored import StoredRows
from tokenprune.evals.storage.results import TaskResult


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


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.81, 0.9), Verdict.HOLDS), ((0.7, 0.79), Verdict.FAILS), ((0.78, 0.82), Verdict.CHANCE)],
)
def test_a_value_is_judged_by_its_interval(interval: tuple[float, float], verdict: Verdict) -> None:
    assert above(interval, 0.8) is verdict


def test_directions_are_judged_by_their_intervals() -> None:
    rows = [
        *pruned("unpruned", 1.0, 360, 360, kv_cache_bytes=4_000_000),
        *pruned("FoPru rank -2", 0.25, 300, 356),
        *pruned("FoPru rank -2", 0.25, 20, 300, "compact"),
        *pruned("VisionZip -2", 0.25, 20, 300),
        *pruned("VisionZip -2", 0.25, 20, 300, "compact"),
        *pruned("VFlowOpt searched_10", 0.1, 200, 300, kv_cache_bytes=500_000),
        *pruned("VFlowOpt", 0.1, 100, 335, kv_cache_bytes=500_000),
        *pruned("downsample", 0.25, 200, 310),
        *pruned("FastV", 0.1, 250, 350, kv_cache_bytes=2_010_000),
        *pruned("FastV", 0.1, 250, 350, "compact", kv_cache_bytes=2_010_000),
        *pruned("PAR", 0.1, 250, 350, kv_cache_bytes=3_000_000),
    ]
    text = directions(rows)
    assert line(text, "25 %", "FoPru rank -2", "+70.0").endswith("| holds |")
    assert line(text, "25 %", "VisionZip -2", "+0.0").endswith("| within chance |")
    gap, _, equal = text.partition("Inside the language model")
    assert not any(one.startswith("| 10 % | FastV") for one in gap.splitlines())
    assert line(text, "FoPru loses at most 3% of VQA at 25 %", "98.9").endswith("| holds |")
    assert line(text, "VFlowOpt keeps 93% of VQA at 10 %, calibrated", "83.3").endswith("| does not hold |")
    assert line(text, "VFlowOpt keeps 93% of VQA at 10 %, default settings", "93.1").endswith("| within chance |")
    assert line(text, "25 %", "REC", "1", "1", "0", "FoPru rank -2", "+25.0")
    assert line(text, "25 %", "VQA", "1", "1", "0", "FoPru rank -2", "+11.5")
    # FastV against the two with a cache of the same size; no cache matches PAR's
    assert line(equal, "10 %", "FastV", "REC", "1", "1", "0", "FoPru rank -2 at 25 %", "-12.5")
    assert line(equal, "10 %", "FastV", "VQA", "1", "1", "0", "FoPru rank -2 at 25 %", "-1.5")
    assert "PAR" not in text


def test_what_was_not_measured_is_said() -> None:
    text = directions(pruned("unpruned", 1.0, 360, 360))
    assert line(text, "FoPru loses at most 3% of VQA at 25 %").endswith("| not measured |")


def test_judging_reads_stored_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, runs = tmp_path / "rows", tmp_path / "runs"
    StoredRows(rows / "unpruned" / "scenes.jsonl", {}).add(pruned("unpruned", 1.0, 380, 380))
    StoredRows(rows / "scenes" / "unpruned.jsonl", {}).add(pruned("unpruned", 1.0, 380, 380))
    StoredRows(rows / "scenes" / "25.jsonl", {}).add(pruned("FoPru rank -2", 0.25, 300, 372))
    main(["--judge", "--output", str(rows), "--runs", str(runs)])
    text = capsys.readouterr().out
    assert line(text, "FoPru loses at most 3% of VQA at 25 %", "97.9")
    assert (runs / "verdicts.md").read_text() == text

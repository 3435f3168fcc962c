"""Tables of accuracy: made from the rows of the plan, and of runs on videos."""

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers.files.measured import N, store
from helpers.files.rows import row

from tokenprune.evals.dev.measure.plan import BOTH, RATIOS, Part
from tokenprune.evals.dev.tables.accuracy import which_strategy
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, measured
from tokenprune.evals.dev.tables.accuracy.videos import accuracy_table, by_kind, kind_of
from tokenprune.evals.models.bundled import CLIPS
from tokenprune.evals.report.table import NOTHING
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.storage.results import TaskResult


def right(setup: Setup, task: str) -> int:
    """Return how many answers are right: Mosaic is best before the language model, FastV inside it, and compact IDs
    lose REC."""
    if setup.position_ids == "compact" and task == "rec":
        return 0
    return {"unpruned": N, "FastV": N - 1, "Mosaic": N - 4, "Mosaic size": N - 5}.get(setup.label, N // 2)


def cells(text: str, *begin: str) -> list[str]:
    """Return the cells of the only table line that begins with these cells."""
    (line,) = [one for one in text.splitlines() if one.startswith(f"| {' | '.join(begin)} |")]
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_which_strategy_ranks_at_an_equal_cache(tmp_path: Path) -> None:
    """FastV's cache is twice that of its keep ratio, so its 10 % are the nearest to 25 %, but not equal: it comes last,
    although it is the best. PAR's 10 % are equal. Mosaic's 10 % are those of the smaller cache."""
    store(tmp_path, MAIN, ratios=(0.25, 0.1), right=right)
    for ratio in ("25", "10"):
        file = tmp_path / "scenes" / f"{ratio}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for one in rows:
            factor = {"FastV": 2, "PAR": 2.5}.get(one["strategy"], 1)
            one["kv_cache_bytes"] = round(factor * one["kv_cache_bytes"])
        file.write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    text = which_strategy.stored(tmp_path)
    first, *lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(lines) == len(which_strategy.ABOUT)
    assert first.startswith("| unpruned | 100 % | 256 |")
    assert lines[0].startswith("| Mosaic |")
    assert [line.split(" | ")[0] for line in lines[-2:]] == ["| FastV", "| calibrated VFlowOpt"]
    assert cells(text, "Mosaic")[1:8] == ["25 %", "64", "2.50 MB", "80.0", "80.0", "80.0", "80.0"]
    assert cells(text, "PAR")[1:8] == ["10 %", "26", "2.50 MB", "50.0", "50.0", NOTHING, NOTHING]
    assert cells(text, "FastV")[1:4] == ["10 %", "26", "2.00 MB"]
    assert cells(text, "downsample")[8:] == ["any image size", "transformers, vLLM", NOTHING, NOTHING]
    n = len(which_strategy.ABOUT) - 3  # without FastV, calibrated VFlowOpt, which has no rows, and downsample
    told = (
        "on {}, 0 are within chance of the unpruned model, and 2 are better and 0 worse than downsample beyond chance"
    )
    both = "; ".join(told.format(task) for task in ("REC", "VQA"))
    assert text.endswith(f"\n\nOf the {n} strategies and settings with a 25 % cache: {both}.\n")


# A setup is shown only when all of its tasks have been measured, and what is missing is named.


THREE = ("fopru:mode=rank,layer=-2", "pyramiddrop", "sparsevlm")
PART = Part(MAIN.data, None, RATIOS, THREE, BOTH)


def test_a_refused_strategy_is_not_waited_for(tmp_path: Path) -> None:
    store(tmp_path, PART, ratios=(0.05,), refused=("pyramiddrop", "sparsevlm"))
    found = measured(PART, tmp_path)
    assert {row.keep_ratio for row in found.rows} == {1.0, 0.05}
    assert not {row.strategy for row in found.rows} & {"PyramidDrop", "SparseVLM"}
    assert found.notes == [
        "At 5 %, not possible on this model: `pyramiddrop` and `sparsevlm`.",
        "50 %, 25 % and 10 %: not measured yet.",
    ]


# Strategies on videos.


def test_kinds_are_those_of_the_bundled_questions() -> None:
    questions = json.loads((CLIPS / "val_q.json").read_text())
    answers = [answer["answer"] for answer in json.loads((CLIPS / "val_a.json").read_text())]
    kinds = [kind_of(number) for number in range(len(questions))]
    assert Counter(kinds) == {"when": 70, "where": 140, "what": 70, "absent": 140}
    for kind, asked, answer in zip(kinds, questions, answers, strict=True):
        assert (kind == "absent") == (answer == "no")
        assert (kind == "what") == (asked["question"] == "what is this?")
    two = [set(kinds[begin : begin + 3]) for begin in range(3, len(kinds), 6)]  # every second clip has two objects
    assert two == [{"when", "where", "absent"}] * 70


@pytest.fixture
def rows() -> list[TaskResult]:
    """Return rows on twelve questions about four clips: the unpruned model is always right, Random is wrong about what
    appears, and EVS is right only about "where"."""
    kinds = [kind_of(number) for number in range(12)]
    images = {"val": [number // 3 for number in range(12)]}
    return [
        by_kind(row(strategy, "original", ratio, {"val": [float(kind != wrong) for kind in kinds]}, images=images))
        for strategy, ratio, wrong in (("unpruned", 1.0, ""), ("Random", 0.4, "when"), ("EVS", 0.4, "where"))
    ]


def test_accuracy_is_shown_by_kind(rows: list[TaskResult]) -> None:
    head, _, unpruned, random, evs = str(accuracy_table(rows)).splitlines()
    assert "all (n = 12) | when (n = 2) | where (n = 4) | what (n = 2) | absent (n = 4)" in head
    assert [cell.split()[0] for cell in random.split(" | ")[4:]] == ["83.3", "0.0", "100.0", "100.0", "100.0"]
    assert [cell.split()[0] for cell in evs.split(" | ")[4:]] == ["66.7", "100.0", "0.0", "100.0", "100.0"]
    assert unpruned.split(" | ")[4].startswith("100.0")

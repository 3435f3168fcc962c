"""A setup is shown only when all of its tasks have been measured, and what is missing is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from helpers.files.measured import store

from tokenprune.evals.dev.measure.plan import BOTH, RATIOS, Part
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, at_equal_caches, measured

STRATEGIES = ("fopru:mode=rank,layer=-2", "pyramiddrop", "sparsevlm")
PART = Part(MAIN.data, None, RATIOS, STRATEGIES, BOTH)


def test_nothing_is_measured(tmp_path: Path) -> None:
    found = measured(PART, tmp_path)
    assert (list(found.rows), found.missing) == ([], list(RATIOS))
    assert found.notes == ["50 %, 25 %, 10 % and 5 %: not measured yet."]


def test_strategies_without_rows_are_named(tmp_path: Path) -> None:
    store(tmp_path, PART, ratios=(0.25,))
    store(tmp_path, replace(PART, strategies=STRATEGIES[:-1]), ratios=(0.1,))
    found = measured(PART, tmp_path)
    assert {row.keep_ratio for row in found.rows} == {1.0, 0.25, 0.1}
    assert found.notes == ["At 10 %, not measured yet: `sparsevlm`.", "50 % and 5 %: not measured yet."]


def test_a_setup_without_a_task_is_left_out(tmp_path: Path) -> None:
    store(tmp_path, PART, ratios=(0.1,))
    file = tmp_path / "scenes" / "10.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    found = measured(PART, tmp_path)
    assert "SparseVLM" not in {row.strategy for row in found.rows}
    assert found.notes[0] == "At 10 %, not measured yet: `sparsevlm`."


def test_without_the_unpruned_model_nothing_is_shown(tmp_path: Path) -> None:
    store(tmp_path, PART)
    (tmp_path / "scenes" / "unpruned.jsonl").unlink()
    assert not measured(PART, tmp_path).rows


def test_a_refused_strategy_is_not_waited_for(tmp_path: Path) -> None:
    store(tmp_path, PART, ratios=(0.05,), refused=("pyramiddrop", "sparsevlm"))
    found = measured(PART, tmp_path)
    assert {row.keep_ratio for row in found.rows} == {1.0, 0.05}
    assert not {row.strategy for row in found.rows} & {"PyramidDrop", "SparseVLM"}
    assert found.notes == [
        "At 5 %, not possible on this model: `pyramiddrop` and `sparsevlm`.",
        "50 %, 25 % and 10 %: not measured yet.",
    ]


def test_keep_ratios_of_equal_caches_are_apart(tmp_path: Path) -> None:
    store(tmp_path, PART, ratios=(0.25,))
    assert not at_equal_caches(tmp_path)
    store(tmp_path / "other", PART, ratios=(0.533,))
    (tmp_path / "other" / "scenes" / "53.3.jsonl").rename(tmp_path / "scenes" / "53.3.jsonl")
    assert {row.keep_ratio for row in at_equal_caches(tmp_path)} == {0.533}
    assert {row.keep_ratio for row in measured(PART, tmp_path).rows} == {1.0, 0.25}

"""The driver of all tables: resumed strategy by strategy, and what it leaves out it says."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from helpers.files.evals import tiny_processor, write_vqav2
from helpers.tiny import ON_LLAVA, tiny_llava
from rich.console import Console

import tokenprune
from tokenprune.evals.dev.measure.plan import BOTH, LEFT_OUT, PRUNED, RATIOS, STRATEGIES, UNPRUNED, Part
from tokenprune.evals.dev.measure.run import Measuring, Step, equal_cache, write_rows
from tokenprune.evals.run.results import TaskResult
from tokenprune.evals.run.results_io import read
from tokenprune.strategies import STRATEGIES as REGISTERED

PART = Part("scenes", None, (0.5, 0.25), ("fopru", "evs", "fastv:layer=1"), BOTH)


@pytest.fixture
def run(tmp_path: Path) -> Measuring:
    write_vqav2(tmp_path / "data" / "scenes")
    return Measuring((tiny_llava(), tiny_processor()), tmp_path / "data", tmp_path / "runs", [], "float32")


def test_a_part_is_measured_and_resumed(run: Measuring) -> None:
    screen = StringIO()
    n_questions = run.asked(PART)
    assert run.missing([PART]) == n_questions * (1 + 2 * (2 + 1 + 3 * 2))
    rows = run.measure(PART, Console(file=screen))
    assert {(row.strategy, row.position_ids, row.keep_ratio) for row in rows} == {
        ("unpruned", "original", 1.0),
        *((name, ids, ratio) for name in ("Random", "FoPru", "FastV 1") for ids in BOTH for ratio in PART.ratios),
        *(("downsample", "original", ratio) for ratio in PART.ratios),
    }
    assert "scenes/50/evs: evs is left out" in screen.getvalue()
    assert run.missing([PART]) == 0
    files = {path: path.stat().st_size for path in run.output.rglob("answers*.jsonl")}
    assert run.measure(PART, Console(quiet=True)) == rows
    assert {path: path.stat().st_size for path in run.output.rglob("answers*.jsonl")} == files


def test_a_kill_loses_no_finished_strategy(run: Measuring, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Measuring.steps

    def killed(self: Measuring, part: Part) -> Iterator[Step]:
        yield from list(whole(self, part))[:4]
        raise KeyboardInterrupt

    monkeypatch.setattr(Measuring, "steps", killed)
    with pytest.raises(KeyboardInterrupt):
        run.measure(PART, Console(quiet=True))
    monkeypatch.setattr(Measuring, "steps", whole)
    before = {file: file.read_bytes() for file in run.output.rglob("answers.jsonl")}
    assert len(before) == 4
    run.measure(PART, Console(quiet=True))
    assert {file: file.read_bytes() for file in before} == before


def test_what_was_refused_is_not_tried_again(run: Measuring) -> None:
    run.measure(PART, Console(quiet=True))
    file = run.output / "scenes" / "50" / "evs.refused"
    assert "frames" in file.read_text()
    file.write_text("said before")
    screen = StringIO()
    run.measure(PART, Console(file=screen, width=200))
    assert "scenes/50/evs: evs is left out: said before" in screen.getvalue()


def test_another_model_is_no_refusal(run: Measuring) -> None:
    run.measure(PART, Console(quiet=True))
    run.model = (tiny_llava(seed=1), tiny_processor())
    with pytest.raises(tokenprune.SettingError, match="holds another run"):
        run.measure(PART, Console(quiet=True))


def test_parts_of_all_questions_and_of_a_few_have_folders_of_their_own(run: Measuring) -> None:
    few = Part("scenes", None, (0.5,), (), questions=1)
    folders = [{step.folder for step in run.steps(part)} for part in (Part("scenes"), few)]
    assert not folders[0] & folders[1]
    assert run.asked(few) == 1 < run.asked(Part("scenes"))


def test_every_strategy_is_planned_or_left_out_with_a_reason() -> None:
    planned = {strategy.split(":")[0] for strategy in STRATEGIES}
    assert planned | set(LEFT_OUT) == set(REGISTERED)
    assert not planned & set(LEFT_OUT)
    assert planned <= set(ON_LLAVA)


def test_the_plan_has_what_was_promised() -> None:
    first = PRUNED[0]
    assert (first.ratios, first.position_ids) == (RATIOS, BOTH)
    assert first.questions is not None
    assert first.questions >= 400
    assert {part.grid for part in UNPRUNED if part.data == "scenes"} >= {(8, 8), None, (24, 24)}
    assert len({part.name for part in PRUNED}) == len(PRUNED)


def test_caches_are_equalled_by_keep_ratios(run: Measuring, tmp_path: Path) -> None:
    rows = run.measure(PART, Console(quiet=True))
    found = equal_cache(rows, ["FastV"])
    assert found is not None
    fast = {round(row.n_mean / row.n_visual, 3) for row in rows if row.strategy == "FastV 1"}
    assert set(found.ratios) == fast - set(RATIOS)
    assert equal_cache(rows, ["PAR"]) is None
    write_rows(rows, tmp_path / "rows.jsonl")
    stored: list[TaskResult] = read([tmp_path / "rows.jsonl"])
    assert len(stored) == len(rows)

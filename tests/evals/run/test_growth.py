"""A run can be extended by strategies and tasks, and failed questions are asked again."""

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.asking import check_same
from helpers.commands import command
from helpers.files.evals import saved, write_refcoco, write_vqav2
from helpers.files.tasks import VIDEO_SETS
from helpers.tiny import tiny_llava

from tokenprune.errors import SettingError
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.short_answers import ShortAnswer

QUICK = ["--position-ids", "original", "--baselines", "unpruned"]
SMALL = [*QUICK, "--tasks", "vqa", "--strategy", "grid", "--keep-ratio", 0.25]
MORE = [*QUICK, "--tasks", "vqa", "rec", "--strategy", "fopru", "grid", "--keep-ratio", 0.25, 0.5]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("growth")
    write_refcoco(folder / "scenes")
    write_vqav2(folder / "scenes", 5)
    return ["--model", saved(tiny_llava(), folder / "model"), "--data", folder / "scenes"]


@pytest.fixture(scope="module")
def whole(tiny: list[Any], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished small run."""
    run = RunFolder(tmp_path_factory.mktemp("small") / "run")
    assert command("eval", *tiny, *SMALL, "--output", run.path) == 0
    return run


@pytest.fixture
def small(whole: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the small run, to extend."""
    return RunFolder(Path(shutil.copytree(whole.path, tmp_path / "run")))


def test_a_run_that_grew_is_as_one_that_was_asked_all_at_once(
    tiny: list[Any], small: RunFolder, tmp_path: Path
) -> None:
    grown, whole = small, RunFolder(tmp_path / "whole")
    known, lines = grown.answers(), (grown.path / "answers.jsonl").read_text()
    assert len(known) == 2 * 5
    assert command("eval", *tiny, *MORE, "--output", grown.path) == 0
    assert (grown.path / "answers.jsonl").read_text().startswith(lines)
    assert {asked: grown.answers()[asked] for asked in known} == known  # none was asked again
    assert command("eval", *tiny, *MORE, "--output", whole.path) == 0
    check_same(grown, whole)
    assert grown.record["identity"] == whole.record["identity"]


def test_a_run_does_not_shrink(tiny: list[Any], small: RunFolder) -> None:
    before = small.record
    at_25 = ["--keep-ratio", 0.25, "--output", small.path]
    said = command("eval", *tiny, *QUICK, "--tasks", "vqa", "--strategy", "fopru", *at_25)  # instead of grid
    assert "another run, with setups that are not named now: Grid, keep ratio 0.25, position IDs original. Name" in said
    assert "(To add strategies, keep ratios, position IDs or tasks to a run, also name those that it has" in said
    said = command("eval", *tiny, *QUICK, "--tasks", "rec", "--strategy", "grid", *at_25)  # instead of vqa
    assert "data.vqa.questions=5" in said
    said = command("eval", *tiny, *MORE, "--limit", 3, "--output", small.path)  # other questions of vqa
    assert "data.limit=None" in said
    assert small.record == before
    assert len(small.results()) == 2


def test_a_run_that_grows_is_not_finished(
    tiny: list[Any], small: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenprune.evals.run.evaluate._ask", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("eval", *tiny, *MORE, "--output", small.path)
    said = command("report", small.path, "--output", tmp_path / "out")
    assert "run: unfinished, with 10 of 40 answers. To resume it, repeat the command that started it;" in said
    monkeypatch.undo()
    assert command("eval", *tiny, *MORE, "--output", small.path) == 0
    assert len(small.results()) == 2 * 5


def test_what_failed_is_asked_again(
    tiny: list[Any], whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, score = RunFolder(tmp_path / "run"), ShortAnswer.score
    command_line = ["eval", *tiny, *SMALL, "--output", run.path]

    def broken(self: ShortAnswer, answer: str) -> float | None:
        if self.id in ("vqa-42001", "vqa-42003"):
            raise OSError("the disk is away")
        return score(self, answer)

    monkeypatch.setattr(ShortAnswer, "score", broken)
    assert command(*command_line, "--on-error", "record") == 0
    assert [row.failed for row in run.results()] == [2, 2]
    right = {asked: answer for asked, answer in run.answers().items() if answer.error is None}
    assert len(right) == 6
    assert command(*command_line, "--on-error", "record") == 0  # they fail again
    assert [row.failed for row in run.results()] == [2, 2]
    assert "stopped at vqa-4200" in command(*command_line)
    assert "unfinished" in command("report", run.path, "--output", tmp_path / "out")
    monkeypatch.undo()
    assert command(*command_line) == 0
    assert [row.failed for row in run.results()] == [0, 0]
    assert {asked: run.answers()[asked] for asked in right} == right  # the others were not asked again
    check_same(run, whole)


OWN = """
from dataclasses import dataclass
from tokenprune.strategy import ScoreStrategy

@dataclass(frozen=True)
class Mine(ScoreStrategy):
    def score(self, tokens):
        return tokens.features.norm(dim=-1)
"""


def test_another_version_of_an_own_strategy_is_another_run(
    tiny: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers would otherwise come from the earlier code. Other code in the file may change."""
    monkeypatch.syspath_prepend(tmp_path)

    def said(code: str) -> Any:
        sys.modules.pop("mine", None)
        (tmp_path / "mine.py").write_text(code)
        importlib.invalidate_caches()
        own = [*QUICK, "--tasks", "vqa", "--strategy", "mine:Mine", "--keep-ratio", 0.25]
        return command("eval", *tiny, *own, "--output", tmp_path / "run")

    assert said(OWN) == 0
    assert said(f"SEED = 0\n{OWN}") == 0
    changed = said(OWN.replace("norm(dim=-1)", "norm(dim=-1).neg()"))
    assert "in which Mine, keep ratio 0.25, position IDs original was measured, with other code of the str" in changed


def test_what_differs_is_named_before_setups(tmp_path: Path) -> None:
    """Of many differing setups, only the first few are named."""
    run, setups = RunFolder(tmp_path / "run"), {f"Grid {number}": {"keep_ratio": 0.5} for number in range(50)}
    whole = {"data": {"limit": None}, "setups": setups, "batch_tokens": 4096}
    run.begin(whole, {})
    none, other = {"setups": {}}, {"setups": {name: {"keep_ratio": 0.25} for name in setups}}
    with pytest.raises(SettingError, match=r"another run, with batch_tokens=4096 and not batch_tokens=2048\. Name"):
        run.check(whole | none | {"batch_tokens": 2048})
    with pytest.raises(SettingError, match=r"not named now: Grid 0; Grid 1; Grid 2; and 47 more\. Name") as said:
        run.check(whole | none)
    assert len(str(said.value)) < 500
    with pytest.raises(SettingError, match=r"in which Grid 0 was measured, with settings\.keep_ratio=0\.5 and not"):
        run.check(whole | other)


def test_a_run_that_grew_says_where_its_data_is_now_and_how_many_frames_were_read(tmp_path: Path) -> None:
    """The report reads the images of lost questions from there."""
    named: dict[str, Any] = {"strategies": [], "baselines": ["unpruned"], "output": tmp_path / "run"}
    model = saved(tiny_llava(), tmp_path / "model")
    write_vqav2(tmp_path / "old" / "vqa", 1)
    evaluate(model, data=tmp_path / "old", tasks=["vqa"], **named)
    before = RunFolder(tmp_path / "run").record["about"]
    (tmp_path / "old").rename(tmp_path / "new")
    VIDEO_SETS["activitynetqa", "published"](tmp_path / "new" / "activitynetqa")
    evaluate(model, data=tmp_path / "new", tasks=["vqa", "activitynetqa"], frames=3, **named)
    about = RunFolder(tmp_path / "run").record["about"]
    assert (about["data"], about["frames"]) == (str(tmp_path / "new"), 3)
    assert about["begun"] == before["begun"]

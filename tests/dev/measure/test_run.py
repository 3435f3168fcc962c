"""The measurement of all tables: what has rows is not measured again, and what is left out is printed."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from helpers.asking import without_times
from helpers.files.evals import brief, sample_image, tiny_processor, write_refcoco, write_vqav2
from helpers.tiny import tiny_llava
from rich.console import Console

import tokenprune
from tokenprune.evals.dev.measure import run as run_module
from tokenprune.evals.dev.measure.estimate import estimate
from tokenprune.evals.dev.measure.plan import BOTH, Part
from tokenprune.evals.dev.measure.run import Measuring
from tokenprune.evals.run.calibration_images import image_digests
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.storage.answers import Answer, AnswerKey
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.results_io import read
from tokenprune.evals.storage.run_folder import RunFolder

PART = Part("scenes", None, (0.5, 0.25), ("fopru", "flowcut", "evs", "fastv:layer=1"), BOTH)
QUIET = Console(quiet=True)


def measuring(folder: Path) -> Measuring:
    model, folders = (brief(tiny_llava()), tiny_processor()), (folder / "data", folder / "rows", folder / "runs")
    return Measuring(model, "tiny", *folders, settings=[], dtype="float32")


def write_questions(folder: Path) -> None:
    write_vqav2(folder / "data" / "scenes")
    write_refcoco(folder / "data" / "scenes")


@pytest.fixture
def run(tmp_path: Path) -> Measuring:
    """A measurement without any rows."""
    write_questions(tmp_path)
    return measuring(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_questions(folder)
    measuring(folder).measure(PART, QUIET)
    return folder


@pytest.fixture
def measured(finished: Path, tmp_path: Path) -> Measuring:
    """A measurement with all rows of `PART`."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return measuring(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of all calls of `evaluate`."""
    calls: list[dict[str, Any]] = []

    def listened(model: Any, **kwargs: Any) -> list[TaskResult]:
        calls.append(kwargs)
        return evaluate(model, **kwargs)

    monkeypatch.setattr(run_module, "evaluate", listened)
    return calls


def another_machine(run: Measuring) -> Measuring:
    """Return the measurement on a machine that has only the rows."""
    shutil.rmtree(run.runs)
    return replace(run, _identities={}, _refused={})


def answers(runs: Path) -> dict[AnswerKey, Answer]:
    """Return all answers of the runs in a folder, without times."""
    folders = [RunFolder(file.parent) for file in runs.rglob("run.json")]
    return without_times(answer for folder in folders for answer in folder.answers().values())


def files(run: Measuring) -> dict[str, bytes]:
    return {path.relative_to(run.output).as_posix(): path.read_bytes() for path in sorted(run.output.rglob("*.*"))}


def test_a_part_is_measured_and_resumed_from_its_rows_alone(run: Measuring, asked: list[dict[str, Any]]) -> None:
    screen = StringIO()
    n_questions = run.n_questions(PART, "vqa") + run.n_questions(PART, "rec")
    n_setups = 1 + 2 * (2 * 3 + 1 + 1)
    n_answers, seconds = estimate(run, PART)
    assert n_answers == n_questions * n_setups
    assert seconds > 0
    run.measure(PART, Console(file=screen, width=200))
    assert "scenes/50: evs is left out" in screen.getvalue()
    assert "frames" in screen.getvalue()
    rows = run.rows(PART)
    assert rows is not None
    both = [(name, ids, ratio) for name in ("Random", "FoPru", "FlowCut") for ids in BOTH for ratio in PART.ratios]
    one = [(name, "original", ratio) for name in ("downsample", "FastV 1") for ratio in PART.ratios]
    expected = {("unpruned", "original", 1.0), *both, *one}
    assert {(row.strategy, row.position_ids, row.keep_ratio) for row in rows} == expected
    assert len(rows) == 2 * n_setups
    assert {(row.model, row.seconds) for row in rows} == {("tiny", None)}
    rows_of = {name for name in files(run) if name.endswith(".jsonl")}
    assert rows_of == {"scenes/25.jsonl", "scenes/50.jsonl", "scenes/unpruned.jsonl"}
    refused = {name: json.loads(content) for name, content in files(run).items() if name not in rows_of}
    assert {name: list(reasons) for name, reasons in refused.items()} == {
        "scenes/25.refused.json": ["evs"],
        "scenes/50.refused.json": ["evs"],
    }
    before = files(run)
    asked.clear()
    elsewhere = another_machine(run)
    elsewhere.measure(PART, QUIET)
    assert not asked
    assert files(run) == before
    assert elsewhere.rows(PART) == rows
    assert estimate(elsewhere, PART) == (0, 0.0)


def test_shared_answers_are_those_of_each_strategy_alone(measured: Measuring, tmp_path: Path) -> None:
    for strategies in ([], ["random"], ["downsample"], ["fopru"], ["flowcut"], ["fastv:layer=1"]):
        evaluate(
            measured.model,
            output=tmp_path / "alone" / "_".join(strategies),
            strategies=strategies,
            keep_ratios=PART.ratios if strategies else [1.0],
            position_ids=PART.ids("".join(strategies)),
            baselines=[] if strategies else ["unpruned"],
            data=measured.data / PART.data,
            dtype="float32",
            console=QUIET,
        )
    together, alone = answers(measured.runs), answers(tmp_path / "alone")
    assert together == alone
    assert len({answer.text for answer in alone.values()}) > 1


def test_a_kill_loses_no_finished_group(
    run: Measuring, asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    listened = run_module.evaluate

    def killed(model: Any, **kwargs: Any) -> list[TaskResult]:
        if len(asked) == 3:
            raise KeyboardInterrupt
        return listened(model, **kwargs)

    monkeypatch.setattr(run_module, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        run.measure(PART, QUIET)
    monkeypatch.setattr(run_module, "evaluate", listened)
    before, first = files(run), asked[2]["tasks"]
    done = {row.key.strategy for row in read([run.output / "scenes" / "50.jsonl"])}
    assert done == {"Random", "downsample", "FoPru"}
    asked.clear()
    another_machine(run).measure(PART, QUIET)
    assert all(files(run)[name].startswith(content) for name, content in before.items())
    again = [call["strategies"] for call in asked if (call["keep_ratios"], call["tasks"]) == ([0.5], first)]
    assert again
    assert not any("fopru" in strategies for strategies in again)


def test_a_new_strategy_is_all_that_is_asked(measured: Measuring, asked: list[dict[str, Any]]) -> None:
    measured.measure(replace(PART, strategies=(*PART.strategies, "divprune")), QUIET)
    assert [call["strategies"] for call in asked] == [["divprune"]] * 4


@pytest.mark.parametrize("changed", ["weights", "dtype", "questions", "settings"])
def test_rows_of_another_measurement_are_refused(measured: Measuring, changed: str) -> None:
    now = another_machine(measured)
    if changed == "weights":
        now.model = (tiny_llava(seed=1), tiny_processor())
    elif changed == "dtype":
        now.model = (tiny_llava().double(), tiny_processor())
    elif changed == "questions":
        now.questions = 1
    else:
        file = measured.output / "scenes" / "50.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            if line["strategy"] == "FoPru":
                line["settings"]["layer"] = -3
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(tokenprune.SettingError, match=r"scenes/(50|unpruned)\.jsonl.*Name another --output"):
        now.measure(PART, QUIET)


def test_no_strategy_is_asked_about_images_of_a_calibration(run: Measuring, tmp_path: Path) -> None:
    part = Part("scenes", None, (0.5,), ("fopru",), settings=True)
    first = load_questions(run.data / "scenes", ["rec"])[0]
    sample_image((50, 50)).save(str(first.images[0]))
    data = {"images": image_digests([first])}
    searched = {"strategy": "vflowopt", "settings": {"keep_ratio": 0.5, "progressive": False}, "search": {"data": data}}
    run.settings = [tmp_path / "searched.json"]
    run.settings[0].write_text(json.dumps(searched))
    run.measure(part, QUIET)
    rows = [row for row in run.rows(part) or () if row.task == "rec"]
    assert {row.strategy for row in rows} == {"unpruned", "Random", "downsample", "FoPru", "VFlowOpt searched"}
    assert len({row.questions for row in rows}) == 1
    assert {row.n for row in rows} == {run.n_questions(part, "rec")}
    assert run.n_questions(part, "rec") < run.n_questions(PART, "rec")

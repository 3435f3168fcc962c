"""`tokenprune paper`: reading protocols, a run that resumes, the table, and refusals before weights are loaded."""

import csv
from pathlib import Path

import pytest
from helpers.commands import command
from helpers.files.search import write_scenes
from rich.console import Console

from tokenprune.errors import DataError, SettingError, TokenPruneError
from tokenprune.evals.models.bundled import SCENES
from tokenprune.evals.papers import protocol
from tokenprune.evals.papers.measuring import PaperRun
from tokenprune.evals.report.estimate import AGREES, HIGHER, LOWER, Estimate
from tokenprune.evals.report.table import Table

SOURCES = Path(__file__).parent / "sources"
OWN = """\
title = "Two methods"
source = "nowhere"
model_type = "llava"
position_ids = "original"
[columns]
VQA = { task = "vqa" }
test-dev = { unavailable = "no answers" }
[strategies]
Grid = "grid"
Random = { strategy = "random", position_ids = "compact" }
[published]
unpruned = [70.5, 78.5]
[published.Grid]
"0.25" = [66.0, nan]
"0.1" = [59.8, nan]
[published.Random]
"0.25" = [0.0, 70.0]
"""


def prints(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what the command printed."""
    command(*words)
    return capsys.readouterr().out


def measure(folder: Path, text: str) -> None:
    read = protocol.read(str(own(folder, text)))
    PaperRun(read, read.model, SCENES, folder / "run").measure("float32", None, Console())


def own(folder: Path, text: str = OWN) -> Path:
    path = folder / "own.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", protocol.names())
def test_shipped_protocols_name_strategies_and_tasks_that_exist(name: str) -> None:
    read = protocol.read(name)
    run = PaperRun(read, read.model, Path("sets"), Path("runs"))
    rows = {(method.name, budget) for method in read.methods for budget in method.budgets}
    assert set(run.setups()) == rows
    assert rows | {(protocol.UNPRUNED, read.whole)} >= set(read.published) | set(read.average)


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.csv")), ids=lambda path: path.stem)
def test_published_numbers_are_those_of_their_source(source: Path) -> None:
    read, compared = protocol.read(source.stem), set()
    for line in csv.DictReader(source.read_text().splitlines()):
        tokens, method = float(line.pop("tokens")), line.pop("method")
        row = (protocol.UNPRUNED, read.whole) if method == protocol.UNPRUNED else (method, tokens)
        compared.add(row)
        assert read.published[row] == {column: float(value) for column, value in line.items() if value}
    assert compared == set(read.published)


@pytest.mark.slow
def test_a_run_resumes_and_compares_with_the_published_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    words = ["paper", str(own(tmp_path)), "--limit", "3", "--output", str(output)]
    first = prints(capsys, *words)
    answers = {path: path.read_bytes() for path in output.rglob("answers.jsonl")}
    assert len(answers) == 3  # unpruned, original IDs, compact IDs
    killed = next(path for path in answers if "compact" in str(path))
    killed.write_bytes(answers[killed].splitlines(keepends=True)[0])
    assert "1" in prints(capsys, *words, "--dry-run")
    again = prints(capsys, *words)
    assert again.splitlines()[-8:] == first.splitlines()[-8:]
    lines = (output / "cells.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines if "VQA" in line] == [
        ["1", "unpruned", "VQA"],
        ["0.25", "Grid", "VQA"],
        ["0.25", "Random", "VQA"],
        ["0.1", "Grid", "VQA"],
    ]
    assert (output / "table.tex").read_text().count(r"\\") == 5


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("[published]", "[published", "own.toml"),
        ('"grid"', '"gird"', "gird"),
        ('"vqa"', '"vqx"', "vqx"),
        ('task = "vqa"', 'task = "vqa", split = "nope"', "nope"),
        ('"llava"', '"qwen3_vl"', "qwen3_vl"),
        ("[66.0, nan]", "[66.0]", "published.Grid.0.25"),
        ('"0.1" =', '"1.5" =', "1.5"),
        ('"original"', '"other"', "other"),
        ("title =", "titel =", "titel"),
    ],
)
def test_a_broken_protocol_is_refused_before_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, named: str
) -> None:
    monkeypatch.setattr("tokenprune.evals.papers.measuring.load_model", None)
    with pytest.raises(TokenPruneError, match=named):
        measure(tmp_path, OWN.replace(old, new, 1))


def test_an_unknown_task_or_protocol_is_refused(tmp_path: Path) -> None:
    read = protocol.read("bundled")
    with pytest.raises(SettingError, match="pope"):
        PaperRun(read, read.model, tmp_path, tmp_path, tasks=["pope"])
    with pytest.raises(DataError, match="bundled"):
        protocol.read("bundle")


def test_a_dry_run_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scenes(tmp_path)
    assert command("paper", "gap-refcoco", "--data", str(tmp_path), "--dry-run") == 1
    text = capsys.readouterr().out
    assert "hf download llava-hf/llava-1.5-7b-hf" in text
    assert "tokenprune sets" in text


def test_verdicts_compare_the_interval_with_the_published_number() -> None:
    measured = Estimate(60.0, 58.0, 62.0)
    assert [measured.verdict(number) for number in (57.0, 61.0, 63.0, None)] == [HIGHER, AGREES, LOWER, None]
    total = Estimate.total([Estimate(50.0, 47.0, 53.0), Estimate(70.0, 66.0, 74.0)], 0.5)
    assert (total.value, total.low, total.high) == (60.0, 57.5, 62.5)


def test_tables_escape_what_latex_and_csv_read_as_commands() -> None:
    table = Table(["a_b", "50 %"], [["x & y", "1, 2"]])
    assert table.text("latex").splitlines()[2:5] == [r"a\_b & 50 \% \\", r"\midrule", r"x \& y & 1, 2 \\"]
    assert table.text("csv") == 'a_b,50 %\nx & y,"1, 2"'

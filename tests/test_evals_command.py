"""`python -m tokenprune.evals`, on a tiny random model."""

import json
from pathlib import Path

import pytest
from evals_files import saved, write_refcoco, write_vqav2
from tiny import tiny_llava

from tokenprune.evals.__main__ import main
from tokenprune.evals.loading import public_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    write_refcoco(folder)
    write_vqav2(folder)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved(tiny_llava(), tmp_path / "model")


def test_two_tasks(model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "results.jsonl"
    arguments = ["--model", model, "--scenes", str(folder), "--limit", "2", "--output", str(output)]
    main([*arguments, "--strategies", "grid", "downsample", "--keep-ratios", "0.25"])
    printed = capsys.readouterr().out
    for expected in ("unpruned", "compact", "9 of 36", "25%", "REC Acc@0.5", "VQA accuracy", "(n = 2)"):
        assert expected in printed
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["strategy"], row["task"]) for row in rows] == [
        (strategy, task) for strategy in ("unpruned", "Grid", "Grid", "downsample") for task in ("rec", "vqa")
    ]
    assert rows[0]["scenes"] == folder.name
    assert rows[0]["model"] == "model"  # not where it is on this machine
    assert (rows[0]["n"], rows[0]["scores"]) == (2, {"val": "--"})
    answers = [json.loads(line) for line in output.with_suffix(".answers.jsonl").read_text().splitlines()]
    assert len(answers) == 2 * len(rows)
    assert [(a["task"], a["strategy"], a["id"], a["split"], a["score"]) for a in answers[:3]] == [
        ("rec", "unpruned", "rec-20", "val", None),
        ("rec", "unpruned", "rec-21", "val", None),
        ("vqa", "unpruned", "vqa-42000", "", 0),
    ]


def test_unpruned_alone(model: str, tmp_path: Path) -> None:
    write_refcoco(tmp_path / "refs")
    output = tmp_path / "results.jsonl"
    arguments = ["--model", model, "--scenes", str(tmp_path / "refs"), "--output", str(output)]
    main([*arguments, "--split", "testA", "--strategies"])
    (row,) = [json.loads(line) for line in output.read_text().splitlines()]
    assert (row["strategy"], list(row["scores"]), row["n"]) == ("unpruned", ["testA"], 1)


@pytest.mark.parametrize(("limit", "n"), [("2", 2), ("all", 3), ("7", 3)])
def test_limit(model: str, folder: Path, tmp_path: Path, limit: str, n: int) -> None:
    output = tmp_path / "results.jsonl"
    arguments = ["--model", model, "--scenes", str(folder), "--strategies", "--output", str(output)]
    main([*arguments, "--limit", limit])
    assert [json.loads(line)["n"] for line in output.read_text().splitlines()] == [n, n]


@pytest.mark.parametrize("limit", ["0", "-1", "most"])
def test_no_limit(limit: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([f"--limit={limit}"])
    assert f"argument --limit: '{limit}' is neither a number of questions nor all" in capsys.readouterr().err


def test_public_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are shared; where somebody's models lie is nobody's business."""
    model = tmp_path / "home" / "llava"
    model.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name(str(model)) == "home/llava"
    monkeypatch.chdir(model)
    assert public_name(str(tmp_path / "home")) == "home"
    assert public_name("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"

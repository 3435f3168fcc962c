"""`tokenprune optimize`, and options that would have no effect."""

import json
from pathlib import Path

import pytest
from helpers.commands import command
from helpers.files.evals import saved
from helpers.files.own import write_own
from helpers.files.search import deep_llava, write_scenes


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved(deep_llava(), tmp_path / "model")


def test_a_search_writes_settings_and_says_how_to_use_them(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(tmp_path / "scenes")
    monkeypatch.chdir(tmp_path)
    options = ["--keep-ratio", 0.3, "--trials", 2, "--questions", 3, "--no-recycle", "--output", "new/settings.json"]
    assert command("optimize", "--model", model, "--data", "scenes", *options) == 0
    printed = capsys.readouterr().out
    assert f"tokenprune eval --model {model} --data scenes --strategy new/settings.json --keep-ratio 0.3" in printed
    record = json.loads((tmp_path / "new" / "settings.json").read_text())
    assert record["model"]["name"] == "model"
    assert (record["search"]["data"]["name"], record["search"]["data"]["split"]) == ("scenes", "val")
    assert len(record["search"]["data"]["ids"]) == 3
    assert "rec-40" not in record["search"]["data"]["ids"]  # it is in the split test
    assert (record["settings"]["recycle"], record["settings"]["keep_ratio"]) == (False, 0.3)
    assert (tmp_path / "new" / "settings.png").is_file()


def test_what_a_search_asks_is_said_at_its_start(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by `eval`, but without --tasks, which searches do not have."""
    monkeypatch.setattr("tokenprune.evals.models.prompt_styles.STYLE_OF_FAMILY", {})
    where = ["--model", model, "--data", tmp_path / "scenes", "--questions", 2]
    write_scenes(tmp_path / "scenes")
    for search in (["layers"], ["optimize", "--trials", 1, "--output", tmp_path / "settings.json"]):
        assert command(*search, *where) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert said.startswith("How llava models write boxes is unknown: 2 questions ask for one with LLaVA's prompt")
    (tmp_path / "scenes" / "pope").mkdir()
    line = {"image": "images/1.png", "question": "05 10"}
    write_own(tmp_path / "scenes", line, line | {"id": "b"})
    assert command("layers", *where) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "asked alone, without the folders pope. To ask those, move yours to" in said


def test_every_split_at_once_and_the_other_state(model: str, tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes")
    options = ["--split", "all", "--state", "mean_pooled", "--trials", 1, "--questions", 5]
    options += ["--output", tmp_path / "settings.json"]
    assert command("optimize", "--model", model, "--data", tmp_path / "scenes", *options) == 0
    search = json.loads((tmp_path / "settings.json").read_text())["search"]
    assert (search["data"]["split"], search["data"]["ids"][-1]) == (None, "rec-40")
    assert search["objective"]["state"] == "mean_pooled"


def test_own_questions_without_splits(model: str, tmp_path: Path) -> None:
    """All are taken, unless a split is asked for by name."""
    write_own(tmp_path, {"image": "1.png", "question": "05 10"})
    where = ["--model", model, "--data", tmp_path, "--questions", 1]
    search = [*where, "--trials", 1, "--output", tmp_path / "settings.json"]
    assert "no split 'val'; it has none. Leave --split out" in command("optimize", *search, "--split", "val")
    assert command("optimize", *search) == 0
    assert json.loads((tmp_path / "settings.json").read_text())["search"]["data"]["split"] is None
    assert command("layers", *where) == 0


# Options without effect and options without a value are errors, reported before a model is loaded.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bench", "--model", "x", "--shape", "llava-1.5-7b"], "--shape has no effect with --model"),
        (["bench", "--new-tokens", 4], "--new-tokens and --memory have no effect without --throughput"),
        (["layers", "--model", "x", "--stages", 3, "--skip", 2], "--skip and --block have no effect with --stages"),
        (["report", "x", "--into", "x.md", "--output", "y"], "--losses and --format have no effect with --into"),
        (["eval", "--strategy", "none", "fopru"], "--strategy none fopru: none cannot be combined with other names"),
        (["eval", "--baselines", "random", "none"], "Leave out none, or write --baselines none alone"),
        (["eval", "--engine", "vllm", "--batch-tokens", 9], "(--batch-tokens) has no effect with an engine"),
        (["adapt", "--model", "x", "--data", "y", "--batch-tokens", 9], "(--batch-tokens) has no effect with labels"),
        (["optimize", "--strategy", "vflowopt:keep_ratio=0.5"], "keep_ratio would have no effect"),
    ],
)
def test_options_without_effect(words: list[object], said: str) -> None:
    assert said in command(*words)

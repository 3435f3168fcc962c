"""Evaluating settings files: the images of their calibration are left out."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import command
from helpers.files.evals import saved
from helpers.files.search import BASE, deep_llava, scenes, searched

from tokenprune import SettingError
from tokenprune.evals.run.calibration_images import calibrated_on, image_digests, without_images
from tokenprune.evals.run.setups import make_setups
from tokenprune.evals.storage.answers import Answer, SetupKey
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.strategies.settings import SettingsFile

SETTINGS = {"strategy": "vflowopt", "settings": vars(BASE)}


def written(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "found.json"
    path.write_text(json.dumps(content))
    return str(path)


def evaluated(folder: Path, *strategies: str, **options: str) -> list[Answer]:
    """Return the answers of a run of `tokenprune eval`."""
    given = [text for name, value in options.items() for text in (f"--{name}", value)]
    where = ["--model", saved(deep_llava(), folder / "model"), "--data", folder / "scenes", "--output", folder / "run"]
    compared = ["--baselines", "unpruned", "--keep-ratio", 0.5, 0.3, "--strategy", *strategies]
    assert command("eval", *where, *given, *compared) == 0
    return list(RunFolder(folder / "run").answers().values())


def test_images_of_one_name_are_all_named(tmp_path: Path) -> None:
    """Two folders have different images called 0.png."""
    first, second = scenes(tmp_path / "first", 2), scenes(tmp_path / "second", 2)
    for question in second:
        path = Path(str(question.images[0]))
        path.write_bytes(path.read_bytes() + b"another")
    digests = image_digests([*first, *second])
    assert len(digests) == len(set(digests.values())) == 4
    assert {*image_digests(first).values(), *image_digests(second).values()} == set(digests.values())
    assert list(digests)[:2] == ["0.png", "1.png"]
    assert image_digests([*first, *first]) == image_digests(first)


def test_found_settings_are_evaluated_on_other_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All setups answer the same questions, and none about an image of the search."""
    questions = scenes(tmp_path / "scenes", 6)
    record = searched(questions[:2], tmp_path / "found.json")
    assert list(record["search"]["data"]["images"]) == ["0.png", "1.png"]
    answers = evaluated(tmp_path, str(tmp_path / "found.json"), "random")
    assert "scenes: 2 of 7 questions are left out for all setups" in capsys.readouterr().out
    asked: dict[SetupKey, list[str]] = {}
    for answer in sorted(answers, key=lambda answer: answer.id):
        asked.setdefault(answer.key, []).append(answer.id)
    assert {(key.strategy, key.keep_ratio) for key in asked} == {
        ("unpruned", 1.0),
        ("VFlowOpt found", 0.3),
        ("Random", 0.5),
        ("Random", 0.3),
    }
    (ids,) = {tuple(ids) for ids in asked.values()}  # so that differences are paired
    assert set(ids) == {question.id for question in questions[2:]} | {"rec-60"}
    rows = RunFolder(tmp_path / "run").results()
    assert [row.settings for row in rows if row.strategy == "VFlowOpt found"] == [record["settings"]] * 2


def test_the_limit_counts_what_is_left(tmp_path: Path) -> None:
    questions = scenes(tmp_path / "scenes", 6)
    searched(questions[1:3], tmp_path / "found.json", trials=1)
    ids = {answer.id for answer in evaluated(tmp_path, str(tmp_path / "found.json"), limit="4")}
    assert len(ids) == 4
    assert not ids & {question.id for question in questions[1:3]}


def test_a_copy_of_an_image_is_the_same_image(tmp_path: Path) -> None:
    """Images are recognised by content, because sets name them differently."""
    questions = scenes(tmp_path, 4)
    images = set(image_digests(questions[:1]).values())
    (image,), (other,) = questions[0].images, questions[2].images
    assert isinstance(other, Path)
    other.write_bytes(image.read_bytes())
    assert without_images(questions, images, "scenes") == [questions[1], questions[3]]
    assert without_images(questions, frozenset(), "scenes") == questions
    with pytest.raises(ValueError, match="scenes: every question is about an image of the calibration data"):
        without_images([questions[0], questions[2]], images, "scenes")


def test_who_says_nothing_of_its_images(tmp_path: Path) -> None:
    """Hand-written settings have no calibration data. Those of a search do, and must name it."""
    assert calibrated_on(SettingsFile.read(written(tmp_path, SETTINGS))) == frozenset()
    for data in ({}, {"data": {"ids": ["rec-1"]}}, {"data": {"images": {}}}):
        file = SettingsFile.read(written(tmp_path, {**SETTINGS, "search": {"seed": 0, **data}}))
        with pytest.raises(SettingError, match=r'found\.json, "search", "data": no "images"'):
            calibrated_on(file)


def test_a_file_stands_at_its_own_keep_ratio(tmp_path: Path) -> None:
    path = written(tmp_path, SETTINGS)
    compared = make_setups([path, "grid"], [0.5, 0.3])
    assert [(c.label, c.keep_ratio) for c in compared if c.position_ids == "compact"] == [
        ("Grid", 0.5), ("VFlowOpt found", 0.3), ("Grid", 0.3)
    ]  # fmt: skip
    with pytest.raises(SettingError, match=r"for keep_ratio=0\.3, which is not measured.*--keep-ratio 0\.5 0\.1 0\.3"):
        make_setups([path], [0.5, 0.1])
    counted = written(tmp_path, {"strategy": "grid", "settings": {"keep": 9}})
    with pytest.raises(SettingError, match='"keep" is a count'):
        make_setups([counted], [0.5])

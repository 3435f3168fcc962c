"""Questions of a folder: prompts, splits, limits."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import tiny_processor, write_refcoco, write_vqav2

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.run.questions import evenly, load_questions, unread_folders_notice
from tokenprune.prompts import chat_prompt


def test_prompts_are_golden(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    write_vqav2(tmp_path)
    processor = tiny_processor()
    assert {
        question.id: chat_prompt(processor, question.text)
        for question in load_questions(tmp_path, style=STYLES["bundled"])
    } == {
        "rec-20": "user : <image> Where is the orange box? assistant :",
        "rec-21": "user : <image> Where is right thing? assistant :",
        "rec-30": "user : <image> Where is corner? assistant :",
        "vqa-42000": "user : <image> Is it box 0? assistant :",
        "vqa-42001": "user : <image> Is it box 1? assistant :",
        "vqa-42002": "user : <image> Is it box 2? assistant :",
    }


def test_split_is_of_both_tasks(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    write_vqav2(tmp_path)
    instances = tmp_path / "instances.json"
    content = json.loads(instances.read_text())
    image = {"id": 42, "file_name": "COCO_val2014_000000000042.jpg", "width": 60, "height": 40, "split": "val"}
    instances.write_text(json.dumps(content | {"images": [*content["images"], image]}))
    assert {(question.task, question.split) for question in load_questions(tmp_path)} == {
        ("rec", "val"),
        ("rec", "testA"),
        ("vqa", "val"),
    }
    assert {(question.task, question.split) for question in load_questions(tmp_path, split="val")} == {
        ("rec", "val"),
        ("vqa", "val"),
    }
    with pytest.raises(ValueError, match=r"questions\.json.*no split 'testA'; it has val"):
        load_questions(tmp_path, split="testA")


def test_a_task_that_is_named_twice_is_asked_once(tmp_path: Path) -> None:
    write_vqav2(tmp_path)
    assert load_questions(tmp_path, ["vqa", "vqa"]) == load_questions(tmp_path, ["vqa"])


def test_limit_is_spread_evenly() -> None:
    numbers: Any = list(range(10))
    assert evenly(numbers, 5) == [0, 2, 4, 6, 8]
    assert evenly(numbers, 3) == [0, 3, 6]
    assert evenly(numbers, 20) == evenly(numbers, None) == numbers


def test_folder_without_questions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no questions; it needs .* name the set: --tasks pope"):
        load_questions(tmp_path)


def test_the_bundled_sets_are_in_a_clone_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the default of --data, even if the library was installed from a wheel."""
    monkeypatch.setattr("tokenprune.evals.run.questions.BUNDLED", tmp_path / "bundled")
    with pytest.raises(DataError, match=r"scenes: no such .*; only a clone has the bundled sets: write --data DIR$"):
        load_questions(tmp_path / "bundled" / "scenes")
    with pytest.raises(DataError, match=r"missing: no such folder of images and questions$"):
        load_questions(tmp_path / "missing")


def test_folders_of_tasks_beside_own_questions_are_named(tmp_path: Path) -> None:
    (tmp_path / "textvqa").mkdir()
    assert unread_folders_notice(tmp_path, None) is None
    (tmp_path / "questions.jsonl").touch()
    assert str(unread_folders_notice(tmp_path, None)).endswith(
        "without the folders textvqa. To ask all, add --tasks own textvqa"
    )
    assert unread_folders_notice(tmp_path, ["own"]) is None

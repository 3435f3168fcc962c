"""Questions of a folder: prompts, splits, limits."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.files.evals import tiny_processor, write_refcoco, write_vqav2

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import STYLES, style_of
from tokenprune.evals.run.questions import evenly, load_questions, notices
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
    assert not list(notices([], tmp_path, None))
    (tmp_path / "questions.jsonl").touch()
    (notice,) = notices([], tmp_path, None)
    assert notice.endswith("without the folders textvqa. To ask all, add --tasks own textvqa")
    assert not list(notices([], tmp_path, ["own"]))


def test_an_unknown_format_of_boxes_is_named_once(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    write_vqav2(tmp_path)

    def said(task: str, **config: Any) -> list[str]:
        style = style_of(SimpleNamespace(**config), tiny_processor())
        return list(notices(load_questions(tmp_path, [task], style=style), tmp_path, [task]))

    (notice,) = said("rec", model_type="qwen9_vl")
    assert notice.startswith("How qwen9_vl models write boxes is unknown: 3 questions ask for one with LLaVA's prompt")
    assert 'Name the format as "prompt_style" in the model\'s config.json: llava, bundled, shikra' in notice
    assert not said("vqa", model_type="qwen9_vl")
    for known in ({"model_type": "llava"}, {"model_type": "qwen9_vl", "prompt_style": "llava"}):
        assert not said("rec", **known)

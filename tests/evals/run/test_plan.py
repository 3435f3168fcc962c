"""What a run asks, in which order, and how it shows its progress."""

import io
import json
import re
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.asking import ask
from helpers.files.evals import tiny_processor, write_refcoco, write_vqav2
from helpers.tiny import tiny_llava
from rich.console import Console

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.run import progress
from tokenprune.evals.run.plan import PART, Plan
from tokenprune.evals.run.questions import evenly, load_questions, notices
from tokenprune.evals.run.runner import QuestionError
from tokenprune.evals.run.setups import Unpruned
from tokenprune.evals.tasks.base.question import Question


def test_plans_have_no_twins(questions: list[Question]) -> None:
    with pytest.raises(ValueError, match=r"question .*'1'.* appears twice"):
        Plan([questions[0], questions[0]], [Unpruned()])


@pytest.mark.parametrize("n_processes", [1, 2, 3])
def test_processes_share_all_questions(questions: list[Question], n_processes: int) -> None:
    many = [replace(questions[0], id=str(i)) for i in range(5 * PART + 1)]
    plan = Plan(many, [Unpruned()])
    shares = [
        [asked for part in plan.parts(frozenset(), index, n_processes) for asked in part.missing]
        for index in range(n_processes)
    ]
    assert sorted(asked.id for share in shares for asked in share) == sorted(question.id for question in many)
    assert [len(share) for share in shares] == [plan.n_asked(index, n_processes) for index in range(n_processes)]
    assert min(map(len, shares)) > PART


# Progress in a log and in a terminal.


def output(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool, every: float) -> str:
    monkeypatch.setattr(progress, "EVERY", every)
    file = io.StringIO()
    with progress.progress_bar(Console(file=file, force_terminal=is_terminal, width=80)) as bar:
        task = bar.add_task("answers [half]", total=8, completed=2)
        for _ in range(3):
            bar.advance(task, 2)
    return file.getvalue()


def test_a_log_gets_a_line_a_minute_and_a_terminal_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = output(monkeypatch, is_terminal=False, every=0.0).splitlines()[:3]
    assert [line.split(",")[0] for line in lines] == [f"answers [half]: {n} of 8" for n in (4, 6, 8)]
    assert re.fullmatch(r"answers \[half\]: 6 of 8, about 0:00:0\d left", lines[1])
    assert " of 8" not in output(monkeypatch, is_terminal=False, every=60.0)
    assert " of 8" not in output(monkeypatch, is_terminal=True, every=0.0)


# Questions of a folder: prompts, splits, limits.


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


# Batches that do not fit into memory.


def test_a_batch_that_is_too_large(questions: list[Question], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llava()
    generate = model.generate

    def short_of_memory(**inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("no memory left")
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", short_of_memory)
    for on_error in ("stop", "record"):
        with pytest.raises(QuestionError, match=r"1: OutOfMemoryError: .*lower --batch-tokens, which is 4096"):
            ask(model, questions, [Unpruned()], on_error=on_error)
    assert len(ask(model, questions, [Unpruned()], batch_tokens=60)) == 3


class Tensors:
    """Fills the memory."""


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_batch_has_filled_is_free_for_its_questions(
    wrapped: bool, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception keeps the locals of the functions that it passed through. Otherwise each question would fail like
    its batch."""
    model = tiny_llava()
    generate, held = model.generate, list[weakref.ref[Tensors]]()

    def fill() -> None:
        tensors = Tensors()
        held.append(weakref.ref(tensors))
        raise torch.OutOfMemoryError("no memory left")

    def short_of_memory(**inputs: Any) -> Any:
        if len(inputs["input_ids"]) == 1:
            assert [one() for one in held] == [None]
            return generate(**inputs)
        try:
            fill()
        except torch.OutOfMemoryError as error:
            if wrapped:
                raise RuntimeError("in a hook") from error
            raise

    monkeypatch.setattr(model, "generate", short_of_memory)
    with pytest.raises(QuestionError, match=r"Each of them succeeds alone"):
        ask(model, questions, [Unpruned()])
    assert len(held) == 1

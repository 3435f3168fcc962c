"""The bundled model and images exist, the loaders of published sets read them, and the model answers."""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import command

from tokenprune.evals.models.bundled import BUNDLED, MODEL, SCENES
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.reading.images import size_of
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.short_answers import ShortAnswer
from tokenprune.evals.tasks.refcoco import RefCoco, RefCocoQuestion
from tokenprune.evals.tasks.vqav2 import Vqav2

MEBIBYTE = 2**20
SETS = "scenes", "counting", "relations", "text", "small", "wide", "tall", "photographs"


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def loaded(folder: Path) -> tuple[Sequence[Any], Sequence[RefCocoQuestion]]:
    style = STYLES["bundled"]
    return Vqav2("vqa", "VQA").load(folder, style=style), RefCoco("rec", "REC", None).load(folder, style=style)


def check_boxes(questions: Sequence[RefCocoQuestion]) -> None:
    for question in questions:
        x1, y1, x2, y2 = question.box
        assert 0 <= x1 < x2 <= question.size[0], question.id
        assert 0 <= y1 < y2 <= question.size[1], question.id


def check_images(questions: Sequence[Question]) -> None:
    for question in {question.images: question for question in questions}.values():
        assert min(size_of(question.images[0])) > 100, question.images


@pytest.mark.parametrize("name", SETS)
def test_bundled_sets_are_complete(name: str) -> None:
    """Each has its licence and enough questions for a table; the scenes in both splits."""
    folder = BUNDLED / name
    questions = load_questions(folder, style=STYLES["bundled"])
    check_images(questions)
    check_boxes([question for question in questions if isinstance(question, RefCocoQuestion)])
    assert all(len(question.answers) == 10 for question in questions if isinstance(question, ShortAnswer))
    assert any("licen" in path.name.lower() for path in folder.iterdir())
    asked = Counter((q.task, q.split if name == "scenes" else None) for q in questions)
    assert asked.total() >= 150 if name == "photographs" else min(asked.values()) >= 400


def test_the_readme_counts_images_and_questions() -> None:
    told = {}
    for line in (BUNDLED / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ["):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            told[cells[0][1 : cells[0].index("]")]] = [int(cell or 0) for cell in cells[2:]]
    counted = {}
    for name in (*SETS, "large", "clips"):
        tasks = ["videoqa"] if name == "clips" else None
        questions = load_questions(BUNDLED / name, tasks, style=STYLES["bundled"])
        test = sum(question.split == "test" for question in questions)
        images = sum(1 for _ in (BUNDLED / name / ("videos" if name == "clips" else "images")).iterdir())
        counted[name] = [images, len(questions) - test, test]
    assert counted == told


def test_what_is_bundled_is_small() -> None:
    assert size(BUNDLED) - size(MODEL) <= 40 * MEBIBYTE
    assert size(MODEL) <= 100 * MEBIBYTE


@pytest.mark.slow
def test_evals_on_the_bundled_model(tmp_path: Path) -> None:
    compared = ["--strategy", "fopru", "--keep-ratio", 0.25, "--baselines", "unpruned", "downsample"]
    assert command("eval", "--limit", 4, *compared, "--output", tmp_path / "run") == 0
    rows = RunFolder(tmp_path / "run").results()
    assert [row.strategy for row in rows[::2]] == ["unpruned", "FoPru", "FoPru", "downsample"]
    unpruned = {row.task: row for row in rows if row.strategy == "unpruned"}
    assert unpruned["rec"].unparsable == 0
    assert unpruned["rec"].accuracy >= 0.5
    assert unpruned["vqa"].accuracy > 0.5
    for row in rows:
        assert row.n_visual >= 256


ALONE = """
import sys
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1])
processor = AutoProcessor.from_pretrained(sys.argv[1])
inputs = processor(images=Image.open(sys.argv[2]), text=sys.argv[3], return_tensors="pt")
answer = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
assert not any(name.startswith("tokenprune") for name in sys.modules)
print(processor.decode(answer, skip_special_tokens=True))
"""


@pytest.mark.slow
def test_loads_and_answers_without_tokenprune(tmp_path: Path) -> None:
    question = loaded(SCENES)[0][0]
    prompt = f"USER: <image>\n{question.text} ASSISTANT:"
    command = [sys.executable, "-c", ALONE, str(MODEL), str(question.images[0]), prompt]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.strip() == question.answers[0]


def test_float16_weights_are_asked_in_float32_on_a_cpu() -> None:
    assert load_model(str(MODEL), "auto", "cpu")[0].dtype == torch.float32
    assert load_model(str(MODEL), "float16", "cpu")[0].dtype == torch.float16

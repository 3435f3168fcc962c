"""VQAv2 files, whole and broken."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import sample_image, write_vqav2

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.tasks.vqav2 import Vqav2

VQA = Vqav2("vqa", "VQA")
QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"


def test_load_and_score(tmp_path: Path) -> None:
    write_vqav2(tmp_path)
    questions = VQA.load(tmp_path)
    assert [question.id for question in questions] == ["vqa-42000", "vqa-42001", "vqa-42002"]
    assert questions[0].text == "Is it box 0?\nAnswer the question using a single word or phrase."
    assert VQA.load(tmp_path, style=STYLES["bundled"])[0].text == "Is it box 0?"
    assert questions[0].answers == ("yes",) * 8 + ("no",) * 2
    assert questions[0].score(" Yes.\n") == 1
    assert questions[0].score("no") == pytest.approx(0.6)
    assert questions[0].score("maybe") == 0
    assert questions[0].score("  ") is None


def test_coco_2017_names(tmp_path: Path) -> None:
    write_vqav2(tmp_path)
    old = tmp_path / "images" / "COCO_val2014_000000000042.jpg"
    old.rename(old.with_name("000000000042.jpg"))
    assert VQA.load(tmp_path)[0].open_images()[0].size == sample_image().size


def test_names_of_instances_json(tmp_path: Path) -> None:
    write_vqav2(tmp_path)
    old = tmp_path / "images" / "COCO_val2014_000000000042.jpg"
    old.rename(old.with_name("forty-two.png"))
    images = [{"id": 42, "file_name": "forty-two.png", "width": 60, "height": 40}]
    (tmp_path / "instances.json").write_text(json.dumps({"images": images, "annotations": []}))
    assert VQA.load(tmp_path)[0].images == (old.with_name("forty-two.png"),)


def _two_splits(folder: Path) -> None:
    """Write a set whose last question is about a second image. `instances.json` puts one image in val, the other in
    train."""
    write_vqav2(folder)
    sample_image().save(folder / "images" / "COCO_val2014_000000000043.jpg")
    _change(folder / QUESTIONS, lambda content: content["questions"][2].update(image_id=43))
    images = [
        {"id": image_id, "file_name": f"COCO_val2014_{image_id:012d}.jpg", "width": 60, "height": 40, "split": split}
        for image_id, split in ((42, "val"), (43, "train"))
    ]
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": []}))


def test_split_is_the_images(tmp_path: Path) -> None:
    _two_splits(tmp_path)
    assert [(question.id, question.split) for question in VQA.load(tmp_path, "val")] == [
        ("vqa-42000", "val"),
        ("vqa-42001", "val"),
    ]
    assert [question.id for question in VQA.load(tmp_path, "train")] == ["vqa-42002"]
    assert VQA.load(tmp_path) == VQA.load(tmp_path, "val")  # train is left out
    with pytest.raises(ValueError, match=r"questions\.json, by the 'split' .*: no split 'test'; it has train, val"):
        VQA.load(tmp_path, "test")


def _change(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_fewer_answers_than_the_metric_needs(tmp_path: Path) -> None:
    write_vqav2(tmp_path)
    _change(tmp_path / ANNOTATIONS, lambda content: content["annotations"][0].update(answers=[{"answer": "a"}]))
    with pytest.raises(DataError, match="42000: 1 answers; the metric"):
        VQA.load(tmp_path)

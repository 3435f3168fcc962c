"""RefCOCO and VQAv2 files, whole and broken."""

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from helpers.files.evals import sample_image, write_refcoco, write_vqav2
from helpers.files.sets import write_parquet

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.tasks.refcoco import RefCoco
from tokenprune.evals.tasks.vqav2 import Vqav2

REC = RefCoco("rec", "REC", None)


@pytest.mark.parametrize("as_pickle", [True, False], ids=["pickle", "json"])
def test_one_sample_a_sentence(tmp_path: Path, as_pickle: bool) -> None:
    write_refcoco(tmp_path, as_pickle=as_pickle)
    questions = REC.load(tmp_path)
    assert [question.id for question in questions] == ["rec-20", "rec-21", "rec-30"]  # train is left out
    first = questions[0]
    assert first.text.endswith("of the region this sentence describes: the orange box")  # whole in golden/refcoco.txt
    assert REC.load(tmp_path, style=STYLES["bundled"])[0].text == "Where is the orange box?"
    assert first.box == (30, 10, 45, 30)
    assert first.size == (60, 40)
    assert first.images == (tmp_path / "images" / "COCO_train2014_000000000011.jpg",)
    assert first.open_images()[0].size == (60, 40)
    assert questions[2].box == (0, 0, 6.5, 4)


def test_a_split_is_loaded_alone(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    assert [question.split for question in REC.load(tmp_path, "testA")] == ["testA"]
    assert [question.expression for question in REC.load(tmp_path, "train")] == ["never asked"]
    with pytest.raises(ValueError, match="no split 'testB'; it has testA, train, val"):
        REC.load(tmp_path, "testB")


def test_a_box_is_right_from_an_iou_of_one_half(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    question = REC.load(tmp_path, style=STYLES["bundled"])[0]  # 30 10 45 30 of 60 x 40 px
    assert question.score("50 25 74 74") == 1
    assert question.score("00 25 25 74") == 0
    question = REC.load(tmp_path)[0]
    assert question.score("[0.5, 0.25, 0.75, 0.75]") == 1
    assert question.score("[0.5, 0.25, 0.63, 0.75]") == 1  # IoU 0.52
    assert question.score("[0.5, 0.25, 0.62, 0.75]") == 0  # IoU 0.48
    assert question.score("over there") is None


def test_image_of_another_size(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    sample_image((40, 60)).save(tmp_path / "images" / "COCO_train2014_000000000011.jpg")
    with pytest.raises(ValueError, match=r"11\.jpg: \(40, 60\) px upright, but instances\.json says \(60, 40\)"):
        REC.load(tmp_path)[0].open_images()


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([_Harmful()]), "asks for .*mkdir; a refs file holds plain data only"),
        (pickle.dumps([{"ref_id": 1}])[:-3], "not a refs pickle"),
        (b"", "not a refs pickle"),
        (pickle.dumps({"ref_id": 1}), "expected a list of refs, found dict"),
        (pickle.dumps([{"ref_id": 7}]), r"refs\(unc\)\.p, record 0, ref_id 7: no 'split'"),
        (pickle.dumps([3]), r"record 0: expected an object with 'split', found int"),
    ],
)
def test_broken_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_refcoco(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        REC.load(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_python_2_strings(tmp_path: Path) -> None:
    """The published pickles were written by Python 2: byte strings, protocol 0."""
    write_refcoco(tmp_path)
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"(lp0\n(dp1\nS'split'\np2\nS'train'\np3\nsS'ref_id'\np4\nI1\nsa.")
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: all questions are of split 'train'"):  # so the file was read
        REC.load(tmp_path)


def test_a_folder_as_published_holds_two_refs_files(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    (tmp_path / "refs(google).p").write_bytes(b"")
    with pytest.raises(DataError, match=r"refs\(google\)\.p and refs\(unc\)\.p\. Name the set, such as --tasks ref"):
        load_questions(tmp_path)
    assert len(load_questions(tmp_path, ["refcoco"])) == 3


def test_the_same_refs_twice(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    (tmp_path / "refs(unc).json").write_bytes(b"[]")
    with pytest.raises(DataError, match=r"refs\(unc\)\.json and refs\(unc\)\.p\. Keep one of them there\."):
        RefCoco("refcoco", "RefCOCO", "unc").load(tmp_path)


def _hub(folder: Path, split: str, *rows: dict[str, Any]) -> None:
    row = {"question_id": "100", "question": "q", "answer": ["the orange box", "right thing"], "bbox": [30, 10, 15, 20]}
    write_parquet(folder / f"{split}-00000-of-00001.parquet", [row, *(row | change for change in rows)])


def test_repeated_refs_of_a_hub_split_are_asked_once(tmp_path: Path) -> None:
    """The Hub's `val` holds two published splits, which share refs."""
    _hub(tmp_path, "val", {"question_id": "7"}, {})
    with pytest.warns(
        UserWarning, match="2 of 6 descriptions are repeated within their split of REC, and are asked on"
    ):
        questions = REC.load(tmp_path)
    assert [question.id for question in questions] == ["rec-100-0", "rec-100-1", "rec-7-0", "rec-7-1"]


@pytest.mark.parametrize("change", [{"answer": ["the cup", "right thing"]}, {"bbox": [0, 0, 9, 9]}, {"image": "other"}])
def test_refs_of_a_hub_split_that_contradict_each_other(tmp_path: Path, change: dict[str, Any]) -> None:
    if "image" in change:
        file = io.BytesIO()
        sample_image(box=(0, 0, 9, 9)).save(file, "PNG")
        change = {"image": {"bytes": file.getvalue(), "path": "b.png"}}
    _hub(tmp_path, "val", change)
    with pytest.raises(DataError, match=r"row 1, answer\[0\]: question_id 100 is also that of .* row 0, answer"):
        REC.load(tmp_path)


def test_refs_in_two_hub_splits(tmp_path: Path) -> None:
    _hub(tmp_path, "testA")
    _hub(tmp_path, "val")
    with pytest.raises(DataError, match=r"rec-100-0 is in split 'testA', and another in split 'val'.* --split testA"):
        REC.load(tmp_path)
    assert len(REC.load(tmp_path, "val")) == 2


# VQAv2.


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

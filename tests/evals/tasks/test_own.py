"""Users' own questions, which every command finds in the folder by itself."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.files.evals import sample_image, write_refcoco, write_vqav2
from helpers.files.tasks import SETS

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import STYLES
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.tasks import TASKS


def write(folder: Path, *lines: Any) -> Path:
    sample_image().save(folder / "1.png")
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "questions.jsonl").write_text(text)
    return folder


def test_lines_become_questions(tmp_path: Path) -> None:
    lines = [
        {"image": "1.png", "question": "What is it?", "answer": "a box", "kind": "naming"},
        "",
        {"image": ["1.png", "1.png"], "question": "Same?", "answer": ["yes", "Yes."]},
    ]
    first, second = load_questions(write(tmp_path, *lines))
    assert (first.id, first.category, len(second.images)) == ("own-1", "naming", 2)
    assert (first.score("A box."), first.score("a cup"), second.score("yes")) == (1.0, 0.0, 1.0)


def test_a_long_right_answer_is_not_cut_off(tmp_path: Path) -> None:
    line = {"image": "1.png", "question": "What does it say?"}
    accepted = "sign", "no parking at any time: vehicles will be towed away"
    short, long = load_questions(write(tmp_path, line | {"answer": "a box"}, line | {"answer": list(accepted)}))
    assert (short.max_new_tokens, long.max_new_tokens) == (32, len(accepted[1]))


def test_two_files_of_own_questions_are_not_read_as_one(tmp_path: Path) -> None:
    SETS["own", "hub"](tmp_path)
    with pytest.raises(DataError, match=r"holds questions\.jsonl and questions\.parquet\. Keep one of them there"):
        load_questions(write(tmp_path, {"image": "1.png", "question": "What?", "answer": "x"}))


def test_questions_without_a_kind_are_other_ones(tmp_path: Path) -> None:
    """They count together with questions of the kind "other"."""
    line = {"image": "1.png", "question": "What is it?", "answer": "a box"}
    own = load_questions(write(tmp_path, line, line | {"kind": "other"}, line | {"kind": "naming"}))
    metrics = TASKS["own"].metrics(list(zip(own, ["a box", "a cup", "a box"], strict=True)))
    assert {name: metric.value for name, metric in metrics.items()} == {
        "accuracy": pytest.approx(2 / 3),
        "other accuracy": 0.5,
        "naming accuracy": 1,
    }
    assert list(TASKS["own"].metrics([(own[0], "a box")])) == ["accuracy"]


def test_a_box_is_asked_for_as_the_model_writes_it(tmp_path: Path) -> None:
    line = {"image": "1.png", "question": "the orange box", "box": [30, 10, 45, 30]}
    (question,) = load_questions(write(tmp_path, line), style=STYLES["qwen3-vl"])
    assert 'the description "the orange box"' in question.text
    assert (question.score('{"bbox_2d": [500, 250, 750, 750]}'), question.score("here")) == (1.0, None)
    assert load_questions(write(tmp_path, line | {"box": [-0.5, 0, 60.5, 41]}))  # for example, rounded to whole pixels


def test_bytes_in_a_table_are_no_image_yet(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": [b"\x89PNG"], "question": ["What?"], "answer": ["x"]}), tmp_path / "questions.parquet"
    )
    with pytest.raises(DataError, match=r"row 0, 'image': bytes, .* dataset\.cast_column\(\"image\", datasets\.Image"):
        load_questions(tmp_path)


def test_a_folder_with_own_questions_is_nothing_else(tmp_path: Path) -> None:
    """Although a table also matches the patterns of published sets."""
    write_refcoco(tmp_path)
    write_vqav2(tmp_path)
    SETS["own", "hub"](tmp_path)
    assert {question.task for question in load_questions(tmp_path)} == {"own"}
    SETS["own", "published"](tmp_path / "both" / "own")
    SETS["pope", "published"](tmp_path / "both" / "pope")
    assert {question.task for question in load_questions(tmp_path / "both")} == {"own", "pope"}


def test_splits(tmp_path: Path) -> None:
    line = {"image": "1.png", "question": "What?", "answer": "x"}
    splits = [line | {"split": name} for name in ("train", "val", "test")]
    assert [question.id for question in load_questions(write(tmp_path, *splits, line))] == ["own-2", "own-3", "own-4"]
    assert [question.id for question in load_questions(tmp_path, split="train")] == ["own-1"]
    with pytest.raises(DataError, match=r"no split 'val'; it has none\. Leave --split out"):
        load_questions(write(tmp_path, line), split="val")
    with pytest.raises(DataError, match="all questions are of split 'train', which is left out; write --split train"):
        load_questions(write(tmp_path, line | {"split": "train"}))


def test_gqa_has_two_splits_to_train_on(tmp_path: Path) -> None:
    """`train_balanced` and `train_all` are both left out by default."""
    SETS["gqa", "published"](tmp_path)
    tested = (tmp_path / "testdev_balanced_questions.json").read_text()
    (tmp_path / "train_balanced_questions.json").write_text(tested.replace("201", "202"))
    assert [question.id for question in TASKS["gqa"].load(tmp_path)] == ["gqa-201"]
    (tmp_path / "testdev_balanced_questions.json").unlink()
    with pytest.raises(DataError, match="of split 'train_balanced', which is left out; write --split train_balanced"):
        TASKS["gqa"].load(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"image": "1.png", "question": " ", "answer": "tea"}, "line 1: an empty question; write one"),
        ({"image": "1.png", "question": "<image>\nWhat?", "answer": "tea"}, "line 1, 'question': holds <image>; leave"),
        ({"image": "1.png", "question": "What?", "answer": " "}, "line 1: no answer. Add one, or .* --no-labels"),
        ({"image": "2.png", "question": "What?", "answer": "x"}, r"line 1: .*2\.png"),
        ({"image": "1.png", "answer": "x"}, "line 1: no 'question'; write questions like {"),
        ({"question": "What?", "answer": "x"}, "line 1: no 'image'; write questions like {"),
        ({"image": "", "question": "What?", "answer": "x"}, "missing image .*; this is a folder, write the path of a"),
        ({"image": "1.PNG", "question": "What?", "answer": "x"}, r"missing image .*1\.PNG; there is .*1\.png$"),
        ({"image": "1.jpg", "question": "What?", "answer": "x"}, r"missing image .*1\.jpg; there is .*1\.png$"),
        ({"image": ".\\1.png", "question": "What?", "answer": "x"}, r"; write '\./1\.png', with slashes$"),
        ({"image": 7, "question": "What?", "answer": "x"}, "line 1, 'image': expected a text or a list of texts"),
        ({"image": "1.png", "question": "What?", "answers": "x"}, "line 1: unknown key 'answers'; known are image"),
        ({"image": "1.png", "question": "What?", "answer": "\ud800"}, "line 1, 'answer': half a character"),
        ({"image": "1.png", "question": "it", "box": [1, 2, 3]}, "'box': a box of 3 numbers; expected left, top"),
        (
            {"image": "1.png", "question": "it", "box": [9, 2, 3, 4]},
            r"'box': the box \[9, 2, 3, 4\] has no area; write left, top, right",
        ),
        ({"image": "1.png", "question": "it", "box": [70, 0, 75, 5]}, "line 1, 'box': .* outside the image of 60 x 40"),
        (
            {"image": "1.png", "question": "it", "box": [0.5, 0.25, 0.75, 1]},
            "line 1, 'box': .* fractions .*; write pixels",
        ),
        ({"image": "1.png", "question": "it", "box": [0, 0, 5, 5], "answer": "x"}, "an 'answer' and a 'box'; keep one"),
        ({"image": ["1.png"] * 2, "question": "it", "box": [0, 0, 5, 5]}, "a box belongs to one image, and 2 are"),
        ({"video": "1.mp4", "question": "What?", "answer": "x"}, "unknown key 'video'.*videos are the task videoqa's"),
        ({"image": "1.mp4", "question": "What?", "answer": "x"}, "line 1, 'image': '1.mp4' is a video. .*videoqa's"),
        ({"image": "https://a.org/1.png", "question": "?", "answer": "x"}, "line 1, 'image': .*is an address; write"),
        ("[", r"line 1, column 2: broken JSON: .*; write one object per line, like {"),
        ("[{}]", r"line 1: expected an object, found list \[{}\]; write one object per line, like {"),
        ("", "no questions; write them like"),
    ],
)
def test_what_is_wrong_with_a_line(line: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_questions(write(tmp_path, line))


def test_questions_with_one_id(tmp_path: Path) -> None:
    """One of them gets it from its place in the file."""
    line = {"image": "1.png", "question": "What?", "answer": "x"}
    for same in ([line | {"id": "2"}, line | {"id": 2}], [line | {"id": 2}, line]):
        with pytest.raises(DataError, match=r"line 2: the id 2 appears twice, first in .*\.jsonl, line 1; give each"):
            load_questions(write(tmp_path, *same))
    assert load_questions(write(tmp_path, line | {"id": 1, "split": "val"}, line | {"id": 1, "split": "train"}))
    for split, also, hint in (("test", "in split 'test'", "test"), ("", "in no split", "val")):
        folder = write(tmp_path, line | {"id": 1, "split": split}, line | {"id": 1, "split": "val"})
        with pytest.raises(DataError, match=f"own-1 is {also}, and another in split 'val'.* with --split {hint}, or"):
            load_questions(folder)


def test_files_in_place_of_a_folder_of_questions(tmp_path: Path) -> None:
    folder = write(tmp_path, {"image": "1.png", "question": "What?", "answer": "x"})
    with pytest.raises(DataError, match=rf"questions\.jsonl: a file; name the folder that it is in: --data {folder}$"):
        load_questions(folder / "questions.jsonl")
    (folder / "questions.jsonl").rename(folder / "questions.json")
    with pytest.raises(DataError, match=r"Questions of your own belong in questions\.jsonl, one object per line"):
        load_questions(folder)
    table = {"image": ["1.png"], "question": ["What?"], "answer": ["x"], "__index_level_0__": [3]}
    (folder / "questions.json").unlink()
    pq.write_table(pa.table(table), folder / "questions.parquet")
    with pytest.raises(DataError, match=r"unknown key '__index_level_0__'.* without its index: to_parquet"):
        load_questions(folder)


def test_answers_may_be_missing_without_labels(tmp_path: Path) -> None:
    (question,) = load_questions(write(tmp_path, {"image": "1.png", "question": "?"}), labels=False)
    assert question.images[0].name == "1.png"
    assert TASKS["own"].load(write(tmp_path, {"image": "1.png", "question": "?", "answer": "x"}))

"""Tiny multiple-choice sets, in each form in which they are distributed according to their documentation."""

import base64
from collections.abc import Callable
from pathlib import Path

from helpers.files.sets import png, save, write_json, write_parquet, write_tsv

SCIENCEQA = {
    "question": "Which is it?", "choices": ["a box", "a dog"], "answer": 0, "hint": "Look at it.", "subject": "nature",
}  # fmt: skip


def scienceqa(folder: Path) -> None:
    problems = {
        "7": SCIENCEQA | {"image": "image.png", "split": "test"},
        "8": SCIENCEQA | {"image": None, "split": "test"},
        "9": SCIENCEQA | {"image": "image.png", "split": "train"},
    }
    write_json(folder / "problems.json", problems)
    save(folder / "images" / "test" / "7" / "image.png")


def scienceqa_hub(folder: Path) -> None:
    rows = [SCIENCEQA, SCIENCEQA | {"image": None}]
    write_parquet(folder / "ScienceQA-IMG" / "test-00000-of-00001.parquet", rows)


MMBENCH = {
    "index": 5, "question": "Which is it?", "hint": "nan", "A": "a box", "B": "a dog", "C": "nan", "D": "nan",
    "answer": "A", "category": "object", "split": "dev",
}  # fmt: skip


def mmbench(folder: Path) -> None:
    """Write MMBench without circular copies: two turns are made from each question."""
    write_tsv(folder / "mmbench_dev.tsv", [MMBENCH | {"image": base64.b64encode(png()).decode()}])


def mmbench_copies(folder: Path) -> None:
    turned = MMBENCH | {"index": 1_000_005, "A": "a dog", "B": "a box", "answer": "B"}
    rows = [MMBENCH | {"image": base64.b64encode(png()).decode()}, turned | {"image": "5"}]
    write_tsv(folder / "MMBench_DEV_EN.tsv", rows)


def mmbench_hub(folder: Path) -> None:
    write_parquet(folder / "en" / "dev-00000-of-00001.parquet", [MMBENCH])


SEED = {
    "question": "Which is it?", "choice_a": "A box", "choice_b": "A dog", "choice_c": "A cat", "choice_d": "A cow",
    "answer": "A", "question_id": "101669", "question_type_id": 5, "data_id": "1454426_2591", "data_type": "image",
}  # fmt: skip


def seedbench(folder: Path) -> None:
    video = SEED | {"data_type": "video", "data_id": "v.mp4", "question_id": "2"}
    write_json(folder / "SEED-Bench.json", {"questions": [SEED, video], "question_type": {}})
    save(folder / "SEED-Bench-image" / "1454426_2591")


def seedbench_hub(folder: Path) -> None:
    embedded = {"bytes": png(), "path": None}
    video = SEED | {"data_type": "video", "data_id": "v.mp4", "question_id": "2", "image": [embedded] * 3}
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", [SEED | {"image": [embedded]}, video])


def ai2d(folder: Path) -> None:
    question = {"abcLabel": False, "answerTexts": ["box", "dog"], "correctAnswer": 0, "questionId": "0.png-1"}
    letters = question | {"abcLabel": True, "answerTexts": ["A", "B"], "questionId": "0.png-2"}
    questions = {"Which is it?": question, "Which letter?": letters}
    write_json(folder / "questions" / "0.png.json", {"imageName": "0.png", "questions": questions})
    (folder / "ai2d_test_ids.csv").write_text("0\n3\n")
    save(folder / "images" / "0.png")
    save(folder / "abc_images" / "0.png")


def ai2d_hub(folder: Path) -> None:
    rows = [
        {"question": "Which is it?", "options": ["box", "dog"], "answer": "0"},
        {"question": "Which letter?", "options": ["A", "B"], "answer": "0"},
    ]
    write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows)


MMSTAR = {"index": 0, "answer": "B", "category": "coarse perception", "l2_category": "scene"}


def mmstar(folder: Path) -> None:
    question = "Which is it?\nOptions: A: a dog, seen from above, B: a box, C: 3, D: none of these"
    rows = [MMSTAR | {"question": question}, MMSTAR | {"index": 1, "question": question, "category": "math"}]
    write_parquet(folder / "mmstar.parquet", rows)


XLRS = {
    "index": 3, "question": "What is it? ", "category": "Counting/Overall counting", "l2-category": "x/attribute",
    "multi-choice options": ["(A) 1", "(B) 2", "(C) 3", "(D) 4"], "answer": "B",
}  # fmt: skip


def xlrs(folder: Path) -> None:
    image = [{"bytes": png(), "path": None}]
    several = XLRS | {"index": 4, "category": "Land use classification/Overall Land use classification"}
    rows = [XLRS | {"image": image}, several | {"answer": "AC", "image": image}]
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", rows)


#: (task, form) -> the function that writes it.
CHOICE_SETS: dict[tuple[str, str], Callable[[Path], None]] = {
    ("scienceqa", "published"): scienceqa,
    ("scienceqa", "hub"): scienceqa_hub,
    ("mmbench", "published"): mmbench,
    ("mmbench", "copies"): mmbench_copies,
    ("mmbench", "hub"): mmbench_hub,
    ("seedbench", "published"): seedbench,
    ("seedbench", "hub"): seedbench_hub,
    ("ai2d", "published"): ai2d,
    ("ai2d", "hub"): ai2d_hub,
    ("mmstar", "hub"): mmstar,
    ("xlrs", "hub"): xlrs,
}

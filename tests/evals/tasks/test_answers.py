"""How answers are read: boxes, IDs of questions, and VQA's accuracy."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.files.evals import write_refcoco
from helpers.files.tasks import SETS

from tokenprune.errors import DataError
from tokenprune.evals.tasks import TASKS, ai2d, mmstar, scienceqa, seedbench
from tokenprune.evals.tasks.base.choices import infer_letter, lettered
from tokenprune.evals.tasks.base.short_answers import anls, exact, relaxed
from tokenprune.evals.tasks.base.vqa_accuracy import normal_accuracy, normalise, soft_accuracy
from tokenprune.evals.tasks.mme import read as read_mme
from tokenprune.evals.tasks.pope import read as read_pope
from tokenprune.evals.tasks.xlrs import read as read_xlrs

OPTIONS = lettered(["a red car", "a blue car", "Berlin", "none of these"])


#: (answer, its letter according to ScienceQA, SEED-Bench, AI2D, MMStar and MMBench).
READ = [
    ("B", "BBBBB"),
    ("b", "-BBB-"),
    ("(B)", "--BBB"),
    ("B.", "BBBBB"),
    ("B. a blue car", "BBBBB"),
    ("B\nbecause it is blue", "BB-B-"),
    ("The answer is B.", "B--BB"),
    ("a blue car", "-A-AB"),  # A by the letter, B by the text
    ("It is in Berlin.", "----C"),
    ("A or B", "-A-A-"),
    ("A photo of Berlin", "-A-AA"),
    ("B is what I would say", "-B-B-"),
    ("Berlin is where I took this image of a car, and in no other town of that country", "-B-B-"),
    ("E", "-----"),
    ("", "-----"),
]


@pytest.mark.parametrize(("answer", "letters"), READ)
def test_letters_are_read_as_each_scorer_reads_them(answer: str, letters: str) -> None:
    readers = (scienceqa.read, seedbench.read, ai2d.read, mmstar.read, infer_letter)
    assert "".join(read(answer, OPTIONS) or "-" for read in readers) == letters


@pytest.mark.parametrize(
    ("answer", "truth", "score"),
    [
        ("105", "100", 1),
        ("105.1", "100", 0),
        ("-100", "100", 0),
        ("50%", "0.5", 1),
        ("50%", "50", 0),  # as in the scorers that are used
        ("0.1", "0", 0),
        ("0", "0", 1),
        ("1e2", "100", 1),
        ("nan", "NaN", 0),  # a number in Python, on which these scorers rely
        ("spain", "Spain", 1),
    ],
)
def test_relaxed(answer: str, truth: str, score: float) -> None:
    assert relaxed(answer, [truth]) == score


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("stanford", 1),
        ("Stanford ", 1),
        ("stanfrd", 7 / 8),  # one letter of eight missing
        ("stan", 1 / 2),  # half is enough in the script, but not in the paper
        ("sta", 0),
        ("oxford", 1 / 2),
    ],
)
def test_anls(answer: str, score: float) -> None:
    assert anls(answer, ["Stanford", "cambridge university"]) == pytest.approx(score)


def test_exact() -> None:
    assert exact("Table.", ["table"]) == 1
    assert exact("the table", ["table"]) == 0
    assert exact("\u7ea2\u8272\u3002", ["\u7ea2\u8272"]) == 1  # "red" with a Chinese full stop
    assert exact("caf\u00e9", ["cafe\u0301"]) == 1  # decomposed accents, as on macOS
    assert exact("cafe", ["caf\u00e9"]) == 0


def test_yes_and_no_are_read_as_each_scorer_reads_them() -> None:
    assert [read_pope(text) for text in ("Yes", "no.", "It does not. Yes", "No, not", "NO", "nothing", " ")] == [
        True, False, False, False, True, True, None,
    ]  # fmt: skip
    assert [read_mme(text) for text in ("Yes, it is", "No", "n", "I do not know", "not", "")] == [
        True, False, False, None, False, None,
    ]  # fmt: skip


def test_xlrs_letters() -> None:
    answers = ("A", "(A) 3", "A C", "A, C.", "b", "Blue", "no idea", "The answer is C", "B. red")
    assert ["".join(sorted(read_xlrs(text))) for text in answers] == ["A", "A", "AC", "AC", "", "BE", "", "C", "BDE"]


# Boxes that no answer can hit are errors.


BOXES = [[9, 9, 0, 4], [9, 9, 5, -4], [0, 0, float("nan"), 4], "1234", None, [70, 0, 5, 5], [0, 0, "5", 5], [1, 2, 3]]


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_boxes(tmp_path: Path, box: Any) -> None:
    write_refcoco(tmp_path)
    path = tmp_path / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["bbox"] = box
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"instances\.json"):
        TASKS["refcoco"].load(tmp_path)


@pytest.mark.parametrize("name", ["chartqa", "scienceqa", "ai2d"])
def test_records_without_ids_in_two_saved_splits(tmp_path: Path, name: str) -> None:
    """`datasets` saves both under the same name, in different folders."""
    SETS[name, "hub"](tmp_path / "hub")
    (downloaded,) = (tmp_path / "hub").rglob("*.parquet")
    table = pq.read_table(downloaded)
    for split in ("validation", "test"):
        (tmp_path / "saved" / split).mkdir(parents=True)
        path = tmp_path / "saved" / split / "data-00000-of-00001.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    both = [question.id for question in TASKS[name].load(tmp_path / "saved")]
    one = [question.id for question in TASKS[name].load(tmp_path / "saved", "test")]
    assert set(one) < set(both)
    assert len(both) == 2 * len(one) == 2 * len(TASKS[name].load(tmp_path / "hub"))


# The official soft accuracy, on values worked out by hand from its description.


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes.", "yes"),
        ("an apple a day", "apple day"),
        ("two", "2"),
        ("100,978", "100978"),
        ("red,blue", "red blue"),
        ("3.5", "3.5"),
        ("U.S.A.", "usa"),
        ("Isnt it", "isn't it"),
        ("its", "its"),
        ("man's", "man's"),
        ("black/white", "black white"),
        ("left\nside", "left side"),
        ("50%", "50%"),  # % is not in the official list of marks
        ("5.", "5"),
        ("t-shirt", "t shirt"),
        ("t-shirt - red", "tshirt red"),  # one mark next to a space removes all of its kind
        ("1,000-2,000", "10002000"),
        ("couldnt've", "couldn't've"),
    ],
)
def test_normalise(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


@pytest.mark.parametrize(
    ("matches", "accuracy"),
    # Leaving out one of m matching answers leaves m - 1, leaving out another leaves m.
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_soft_accuracy_of_ten(matches: int, accuracy: float) -> None:
    answers = ["yes"] * matches + ["no"] * (10 - matches)
    assert soft_accuracy("yes.", answers) == pytest.approx(accuracy)


def test_people_are_hardly_normalised() -> None:
    """As in the official script, only marks are removed, and only if the answers differ."""
    assert soft_accuracy("T-shirt", ["t-shirt"] * 10) == 0
    assert soft_accuracy("T-shirt", ["t-shirt"] * 9 + ["shirt"]) == 1
    assert soft_accuracy("Yes.", ["yes"] * 10) == 1
    assert soft_accuracy("2", ["two"] * 9 + ["2."]) == pytest.approx(0.3)
    assert soft_accuracy("2", ["two"] * 10) == 0


def test_textvqa_normalises_all_answers() -> None:
    assert normal_accuracy("T-shirt", ["t-shirt"] * 10) == normal_accuracy("2", ["two"] * 10) == 1
    assert normal_accuracy("redblue", ["red,blue"] * 10) == 1  # commas are removed first
    assert normal_accuracy("mans", ["man's"] * 10) == 0
    assert normal_accuracy("man 's", ["man's?"] * 10) == 1
    assert normal_accuracy("stop", ["stop"] * 2 + ["go"] * 8) == pytest.approx(0.6)

"""Reading options, numbers and words from free text."""

import pytest

from tokenprune.evals.tasks import ai2d, mmstar, scienceqa, seedbench
from tokenprune.evals.tasks.base.choices import infer_letter, lettered
from tokenprune.evals.tasks.base.short_answers import anls, exact, relaxed
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
    ("B: whatever", "-B-BB"),
    ("B\nbecause it is blue", "BB-B-"),
    ("The answer is B.", "B--BB"),
    ("The answer is A.", "A--AA"),
    ("Option B", "---BB"),
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
        ("95", "100", 1),
        ("105.1", "100", 0),
        ("-100", "100", 0),
        ("50%", "0.5", 1),
        ("50%", "50", 0),  # as in the scorers that are used
        ("0.1", "0", 0),
        ("0", "0", 1),
        ("1e2", "100", 1),
        ("nan", "NaN", 0),  # a number in Python, on which these scorers rely
        ("inf", "100", 0),
        ("2010, 2011", "2010, 2011", 1),
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
        ("stanf", 5 / 8),
        ("oxford", 1 / 2),
        ("cambridge", 0),
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

"""The official soft accuracy, on values worked out by hand from its description."""

import pytest

from tokenprune.evals.tasks.base.vqa_accuracy import normal_accuracy, normalise, soft_accuracy


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes.", "yes"),
        ("The  Cat", "cat"),
        ("an apple a day", "apple day"),
        ("two", "2"),
        ("None", "0"),
        ("100,978", "100978"),
        ("red,blue", "red blue"),
        ("3.5", "3.5"),
        ("U.S.A.", "usa"),
        ("dont", "don't"),
        ("Isnt it", "isn't it"),
        ("its", "its"),
        ("man's", "man's"),
        ("10:30", "10:30"),
        ("black/white", "black white"),
        ("left\nside", "left side"),
        ("50%", "50%"),  # % is not in the official list of marks
        (".5", ".5"),
        ("5.", "5"),
        ("t-shirt", "t shirt"),
        ("t-shirt - red", "tshirt red"),  # one mark next to a space removes all of its kind
        ("1,000-2,000", "10002000"),
        ("couldnt've", "couldn't've"),
        ("hell", "hell"),
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

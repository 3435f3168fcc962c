"""Free text read as options, numbers and words."""

import pytest

from tokenprune.evals.choices import infer_letter, lettered, read_letter
from tokenprune.evals.short_answers import anls, exact, relaxed
from tokenprune.evals.tasks.mme import read as read_mme
from tokenprune.evals.tasks.pope import read as read_pope
from tokenprune.evals.tasks.xlrs import read as read_xlrs

OPTIONS = lettered(["a red car", "a blue car", "Berlin", "none of these"])


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" b. ", "B"),
        ("(B)", "B"),
        ("B. a blue car", "B"),
        ("B) a blue car", "B"),
        ("B: whatever", "B"),
        ("B\nbecause it is blue", "B"),
        ("The answer is B.", "B"),
        ("The correct answer is (B), a blue car", "B"),
        ("I choose option B", "B"),
        ("Probably (B) here", "B"),
        ("a blue car", "B"),
        ("A blue car.", "B"),  # no letter A
        ("It is in Berlin.", "C"),
        ("E", None),
        ("B or C", None),
        ("(B) or (C)", "B"),  # the one in front
        ("a red car and a blue car", None),
        ("A car", None),
        ("", None),
    ],
)
def test_letters(answer: str, letter: str | None) -> None:
    assert read_letter(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("*B*: whatever", "B"),
        ("I would choose B here", "B"),
        ("A", "A"),
        ("A.", "A"),
        ("A fine old car", None),  # an article
        ("A fine old car in Berlin", "C"),
        ("b", None),  # a chat model would be asked
        ("B or C", None),
        ("it is a Blue car", "B"),
        ("a red car and a blue car", None),
        ("E", None),
        ("", None),
    ],
)
def test_letters_by_the_rules_of_vlmevalkit(answer: str, letter: str | None) -> None:
    assert infer_letter(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "truth", "score"),
    [
        ("105", "100", 1),
        ("95", "100", 1),
        ("105.1", "100", 0),
        ("-100", "100", 0),
        ("50%", "0.5", 1),
        ("50%", "50", 0),  # as the scorers in use have it
        ("0.1", "0", 0),
        ("0", "0", 1),
        ("1e2", "100", 1),
        ("nan", "NaN", 1),  # a word, as it should be
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
        ("stan", 0),  # half is too much
        ("stanf", 5 / 8),
        ("oxford", 0),
    ],
)
def test_anls(answer: str, score: float) -> None:
    """As defined; the package `anls` says the same on 3,000 random texts."""
    assert anls(answer, ["Stanford", "cambridge university"]) == pytest.approx(score)


def test_exact() -> None:
    assert exact("Table.", ["table"]) == 1
    assert exact("the table", ["table"]) == 0


def test_yes_and_no_are_read_as_each_scorer_reads_them() -> None:
    assert [read_pope(text) for text in ("Yes", "no.", "It does not. Yes", "No, not", "NO", "nothing", " ")] == [
        True, False, False, False, True, True, None,
    ]  # fmt: skip
    assert [read_mme(text) for text in ("Yes, it is", "No", "n", "I do not know", "not", "")] == [
        True, False, False, None, False, None,
    ]  # fmt: skip


def test_xlrs_letters() -> None:
    assert [sorted(read_xlrs(text)) for text in ("A", "(A) 3", "A C", "A, C.", "b", "Blue", "no idea")] == [
        ["A"], ["A"], ["A", "C"], ["A", "C"], ["B"], [], [],
    ]  # fmt: skip

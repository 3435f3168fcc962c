"""A page never shows a question that was not the one asked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.files.evals import sample_image, saved
from helpers.tiny import tiny_llava

from tokenprune.errors import SettingError
from tokenprune.evals.report.regressions import Regression, questions_of
from tokenprune.evals.run.evaluate import evaluate
from tokenprune.evals.storage.run_folder import RunFolder


def write(data: Path, *asked: str) -> None:
    """Write the data set anew: a question, named by a letter, about each of as many images."""
    for number in range(len(asked)):
        sample_image((60 + number, 40)).save(data / f"{number}.png")
    lines = [{"image": f"{number}.png", "question": one, "answer": "x"} for number, one in enumerate(asked)]
    (data / "questions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Path]:
    """A run of the first and the third of four questions, and the folder of their data."""
    place = tmp_path_factory.mktemp("edited")
    (place / "set").mkdir()
    write(place / "set", *"abcd")
    model = saved(tiny_llava(), place / "model")
    named = {"strategies": ["grid"], "keep_ratios": [0.25], "baselines": ["unpruned"], "limit": 2}
    evaluate(model, output=place / "run", data=place / "set", position_ids=["original"], **named)  # pyright: ignore[reportArgumentType]
    return RunFolder(place / "run"), place / "set"


def shown(run: RunFolder) -> list[str]:
    found = questions_of(run, [Regression(one, one, str(run.path)) for one in run.answers().values()])
    return sorted(one.question.text[0] for one in found.values())


def test_unchanged_questions_are_shown_also_beside_others(run: tuple[RunFolder, Path]) -> None:
    folder, data = run
    for asked in ("abcd", "aXcd", "abcdX"):  # what the run did not ask may change
        write(data, *asked)
        assert shown(folder) == ["a", "c"]


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda data: write(data, *"bcd"), "with other own questions, right answers, images or frames"),
        (lambda data: write(data, "a"), "with own.questions=2 and not own.questions=1"),
        (lambda data: sample_image((9, 9)).save(data / "2.png"), "with other own questions, right answers, images"),
    ],
    ids=["a line deleted", "too few lines", "another image"],
)
def test_edited_questions_are_named(run: tuple[RunFolder, Path], edit: Callable[[Path], None], what: str) -> None:
    folder, data = run
    write(data, *"abcd")
    edit(data)
    with pytest.raises(SettingError, match="Restore what was asked, or evaluate again") as refused:
        shown(folder)
    assert str(refused.value).startswith(f"{data / 'questions.jsonl'}: changed since the run, {what}")

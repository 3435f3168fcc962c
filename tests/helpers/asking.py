"""Ask a tiny model meaningless questions, and compare the answers."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helpers.files.evals import tiny_processor
from tokenprune.evals.run.plan import Plan
from tokenprune.evals.run.runner import Runner
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.storage.answers import Answer, AnswerKey
from tokenprune.evals.storage.provenance import versions
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.question import Question


@dataclass(frozen=True, kw_only=True)
class Echo(Question):
    """A question to which every answer is right, or unparsable if not `readable`."""

    readable: bool = True

    def score(self, answer: str) -> float | None:
        return 1.0 if self.readable else None


def ask(
    model: Any,
    questions: list[Question],
    compared: list[Setup],
    *,
    batch_tokens: int = 4096,
    on_error: Any = "stop",
    done: Any = frozenset(),
) -> list[Answer]:
    runner = Runner(model, tiny_processor(), compared, batch_tokens, on_error)
    return [
        answer for part in Plan(questions, compared).parts(done) for answers in runner.ask(part) for answer in answers
    ]


def identity() -> dict[str, Any]:
    return {"model": {"device": "cpu", "dtype": "float32"}, "versions": versions()}


def without_times(answers: Iterable[Answer]) -> dict[AnswerKey, Answer]:
    """Return the answers without what differs between runs."""
    return {answer.answer_key: replace(answer, seconds=0.0) for answer in answers}


def check_same(run: RunFolder, whole: RunFolder) -> None:
    """Check that two finished runs have the same answers and results."""
    assert without_times(run.answers().values()) == without_times(whole.answers().values())
    assert [replace(row, seconds=None) for row in run.results()] == [
        replace(row, seconds=None) for row in whole.results()
    ]


def echoes(folder: Path) -> list[Question]:
    """Return three questions about one image. The second's answer cannot be read, and the third is in another split."""
    image = folder / "images" / "COCO_val2014_000000000042.jpg"
    return [
        Echo(
            task="vqa",
            id=str(i),
            images=(image,),
            text="00 01 02 " * i,
            split="test" if i == 3 else "val",
            readable=i != 2,
        )
        for i in (1, 2, 3)
    ]

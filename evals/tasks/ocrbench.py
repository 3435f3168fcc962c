"""OCRBench (https://arxiv.org/abs/2305.07895): text in scenes, documents, handwriting and formulas.

It reads the Hub's echo840/OCRBench, whose layout follows lmms-eval's task and was not checked against the real files.
The prompt is the question alone. The scorer is lmms-eval's, checked by running it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.short_answers import ShortAnswer
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, of_each_category

#: Full-width ASCII characters and the ideographic space -> their ASCII characters.
NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: ord(" ")}


def contains(answer: str, answers: Sequence[str]) -> float:
    """Return 1 if the answer contains one of the right ones, ignoring case, line breaks and full width."""
    return _contains(answer, answers, lambda text: text.translate(NARROW).lower().strip().replace("\n", " "))


def contains_formula(answer: str, answers: Sequence[str]) -> float:
    """The same for formulas, whose case counts and whose spaces don't."""
    return _contains(answer, answers, lambda text: text.strip().replace("\n", "").replace(" ", ""))


def _contains(answer: str, answers: Sequence[str], form: Callable[[str], str]) -> float:
    return float(any(form(truth) in form(answer) for truth in answers))


@dataclass(frozen=True)
class OcrBench(FileTask[ShortAnswer]):
    """Accuracy, and that of each of its ten kinds. The published score is 1000 times the accuracy."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = hub()

    def question(self, record: Record, folder: Path, style: Style) -> ShortAnswer:
        return ShortAnswer(
            task=self.name,
            id=f"{self.name}-{record.place}",
            images=(record.image(),),
            text=record.text("question").strip(),
            split=record.split,
            category=record.text("question_type"),
            max_new_tokens=128,
            answers=tuple(record.texts("answer")),
            worth=contains_formula if record.text("dataset") == "HME100k" else contains,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        of_each = {name: Metric.of(ratio) for name, ratio in of_each_category(answered).items()}
        return super().metrics(answered) | of_each

"""MathVista (https://arxiv.org/abs/2310.02255): mathematics in charts, geometry, puzzles and photographs.

It reads the Hub's AI4Math/MathVista; published numbers are of `testmini`, and the answers of `test` are not published.
The layout follows the Hub and was not checked against the real files. The prompt is lmms-eval's `format`, which asks
for the answer alone.

The authors let GPT-4 extract the answer from a reply. Here no judge is asked. A reply is read if it is a choice or its
letter (by VLMEvalKit's rules), a number, or a list in brackets, depending on the question; it is then compared as by
the authors (checked by running lmms-eval's copy). Any other reply is unparsable, and scores 0, although a judge might
find the answer in it: report the column, and do not compare models that reason first with published numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import LETTER, Style
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.records import Record
from tokenprune.evals.tasks.base.choices import Choice, format_options, infer_letter, lettered
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, of_each_category

#: Kind of answer and its decimal places -> what the prompt asks for.
ASKED = {
    ("integer", 0): "Answer the question using a single integer number.",
    ("float", 1): "Answer the question using a single floating-point number with one decimal place.",
    ("float", 2): "Answer the question using a single floating-point number with two decimal places.",
    ("list", 0): "Answer the question using a Python list.",
}


def read(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of a choice that is the whole answer, or else what VLMEvalKit reads."""
    return next((letter for letter, text in options.items() if text == answer), infer_letter(answer, options))


def normal(answer: str, kind: str, decimals: int) -> str | None:
    """Return a number or a list as the set writes it; None if the answer is something else."""
    try:
        if kind == "list":
            listed = fields.python_list(answer)
            return None if listed is None else str(listed)
        number = float(answer)
        return str(int(number) if kind == "integer" else round(number, decimals))
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, kw_only=True)
class Number(Question):
    """A question whose answer is a number, or a list of numbers, with so many decimal places."""

    answer: str
    kind: str
    decimals: int

    def score(self, answer: str) -> float | None:
        given = normal(answer, self.kind, self.decimals)
        return None if given is None else float(given == self.answer.strip())


@dataclass(frozen=True)
class MathVista(FileTask[Question]):
    """Accuracy, and that of each of the five kinds of questions."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = hub()

    def question(self, record: Record, folder: Path, style: Style) -> Choice | Number:
        unit, options = record.text_or_empty("unit"), {}
        asked = record.text("question") + (f" (Unit: {unit})" if unit else "")
        kind, decimals = record.text("answer_type"), int(record.number("precision")) if record.has("precision") else 0
        if record.text("question_type") == "multi_choice":
            options, ask = lettered(record.texts("choices")), LETTER
            asked += f"\n{format_options(options)}"
        elif (kind, decimals) not in ASKED:
            raise DataError(f"{record.where}: answer_type {kind!r} with precision {decimals}; correct the file")
        else:
            ask = ASKED[kind, decimals]
        about: dict[str, Any] = {
            "task": self.name,
            "id": f"{self.name}-{record.identifier('pid')}",
            "images": (record.image("decoded_image"),),
            "text": f"{asked}\n{ask}" if style.instructions else asked,
            "split": record.split,
            "category": fields.text(record["metadata"], "task", f"{record.where}, 'metadata'"),
        }
        answer = record.text_or_empty("answer")
        if not answer:
            raise DataError(f"{record.where}: no answer; the test split has none; use --split testmini")
        if not options:
            return Number(**about, answer=answer, kind=kind, decimals=decimals)
        if answer not in options.values():
            raise DataError(f"{record.where}: answer {answer!r} is none of the choices; correct the file")
        letter = next(letter for letter, text in options.items() if text == answer)
        return Choice(**about, options=options, letter=letter, read=read)

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        of_each = of_each_category(answered)
        return super().metrics(answered) | {kind: Metric.of(of_each[kind]) for kind in sorted(of_each)}

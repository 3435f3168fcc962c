"""VizWiz-VQA (https://arxiv.org/abs/1802.08218): questions by blind people about their own photographs.

It reads the published `SPLIT.json` (`train.json`, `val.json`; images in `SPLIT/` or `images/`) and the Hub's
lmms-lab/VizWiz-VQA. The layouts follow the challenge's page and the Hub and were not checked against the real
files. The answers of `test` are not published.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.short_answers import ShortAnswer
from tokenprune.evals.tasks.base.task import FileTask, Form, hub
from tokenprune.evals.tasks.base.vqa_accuracy import normal_accuracy, two_or_more

UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."


def _published(path: Path) -> list[Record]:
    return [record.in_split(path.stem) for record in json_records(path)]


@dataclass(frozen=True)
class VizWiz(FileTask[ShortAnswer]):
    """Soft accuracy of ten answers; `unanswerable` is an answer like any other.

    All answers are normalised like TextVQA's, as in lmms-eval (checked by running it). The challenge's own script was
    not available.
    """

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (
        Form(("train.json", "val.json"), _published),
        *hub(),
    )

    def question(self, record: Record, folder: Path, style: Style) -> ShortAnswer:
        image = record["image"]
        name = record.identifier("question_id", "image")
        if isinstance(image, str):
            image = record.find_image(folder, f"{record.split}/{image}", f"images/{image}")
        else:
            image = record.image()
        record.check_answered()
        where = f"{record.where}, 'answers'"
        answers = [
            fields.as_text(fields.field(given, "answer", where) if isinstance(given, dict) else given, where)
            for given in record.items("answers")
        ]
        question = record.text("question")
        if style.instructions:
            question = f"{question}\n{UNANSWERABLE}"
        return ShortAnswer(
            task=self.name,
            id=f"{self.name}-{name}",
            images=(image,),
            text=style.short_answer(question),
            split=record.split,
            category=record.text("answer_type", "category"),
            answers=two_or_more(answers, where),
            worth=normal_accuracy,
        )

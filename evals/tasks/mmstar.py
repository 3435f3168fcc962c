"""MMStar (https://arxiv.org/abs/2403.20330): multiple choice that cannot be answered without the image.

It reads the Hub's Lin-Chen/MMStar (`mmstar.parquet`; the options are part of the question) and the table `MMStar.tsv`
(options in columns, images in base64). The layouts follow the Hub's description and were not checked against the real
files. Answers are read as the set's script does (MMStar-Benchmark/MMStar, checked by reading it).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import LETTER, Style
from tokenprune.evals.reading.records import Base64, Record, tsv_records
from tokenprune.evals.tasks.base.choices import Choice, checked_letter, format_options
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, mean_of_categories

_OPTION = re.compile(r"(?:^|[\s,])([A-D]):\s*(.*?)(?=,?\s[A-D]:|\s*$)", flags=re.DOTALL)


def read(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter that the set's script reads: the first, or the one after `(`, `option ` or `the answer is `.

    Case is ignored, so `a dog` is option A.
    """
    match = re.match(r"(?:\(|option\s|the answer is\s)?(.)", answer, re.IGNORECASE)
    letter = match[1].upper() if match else ""
    return letter if letter in options else None


def _published(path: Path) -> list[Record]:
    return [
        record.with_fields(image=Base64(f"{record.where}, image", path.name, record.text("image")))
        for record in tsv_records(path)
    ]


@dataclass(frozen=True)
class MmStar(FileTask[Choice]):
    """Accuracy, and its mean over the six capabilities."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("*.tsv",), _published), *hub())

    def question(self, record: Record, folder: Path, style: Style) -> Choice:
        question = record.text("question").strip()
        if "A" in record:
            options = {letter: record.text_or_empty(letter) for letter in "ABCD" if record.text_or_empty(letter)}
            asked = style.choice(question, format_options(options))
        else:
            options = dict(_OPTION.findall(question.partition("Options:")[2]))
            asked = f"{question}\n{LETTER}" if style.instructions else question
        return Choice(
            task=self.name,
            id=f"{self.name}-{record.identifier('index')}",
            images=(record.image(),),
            text=asked,
            split=record.split,
            category=record.text("category"),
            options=options,
            letter=checked_letter(options, record.text("answer"), record.where),
            read=read,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        return super().metrics(answered) | {"mean of categories": mean_of_categories(answered)}

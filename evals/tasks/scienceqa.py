"""ScienceQA (https://arxiv.org/abs/2209.09513), the questions that have an image: ScienceQA-IMG.

It reads the published `problems.json` (images in `SPLIT/ID/` or `images/SPLIT/ID/`) and the Hub's lmms-lab/ScienceQA
and derek-thomas/ScienceQA. Questions without an image are left out. The layouts follow the repository and the
Hub and were not checked against the real files. Answers are read as by LLaVA's script (checked by reading it); the
prompt was checked by running lmms-eval's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.choices import Choice, format_options, letter_at, lettered
from tokenprune.evals.tasks.base.task import FileTask, Form, hub


def read(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter that LLaVA's eval_science_qa.py reads.

    It stands alone, or leads and is followed by a period or a line break, or is in `The answer is B`, preferably
    followed by a period. (LLaVA requires a space after the leading letter's period.)
    """
    text = answer.replace("\n", ". ")
    match = (
        re.match(r"([A-E])(?:$|\.)", text)
        or re.search(r"The answer is ([A-E])\.", text)
        or re.search(r"The answer is ([A-E])", text)
    )
    return match[1] if match and match[1] in options else None


def _published(path: Path) -> list[Record]:
    return [record.in_split(record.text("split")) for record in json_records(path)]


@dataclass(frozen=True)
class ScienceQa(FileTask[Choice]):
    """Accuracy over the questions with an image."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (
        Form(("problems.json",), _published),
        *hub("ScienceQA-IMG", "ScienceQA-FULL"),
    )

    def questions(self, records: Sequence[Record], folder: Path, style: Style) -> list[Choice]:
        return [self.question(record, folder, style) for record in records if record["image"] not in (None, "")]

    def question(self, record: Record, folder: Path, style: Style) -> Choice:
        image = record["image"]
        if isinstance(image, str):
            place = f"{record.split}/{record['id']}/{image}"
            image = record.find_image(folder, place, f"images/{place}")
        else:
            image = record.image()
        options = lettered(record.texts("choices"))
        hint = record.text_or_empty("hint")
        question = f"Context: {hint}\n{record.text('question')}" if hint else record.text("question")
        number = record.identifier("id") if "id" in record else record.place
        return Choice(
            task=self.name,
            id=f"{self.name}-{number}",
            images=(image,),
            text=style.choice(question, format_options(options)),
            split=record.split,
            category=record.text_or_empty("subject"),
            options=options,
            letter=letter_at(options, record.integer("answer"), record.where),
            read=read,
        )

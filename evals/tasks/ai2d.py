"""AI2D (https://arxiv.org/abs/1603.07396): multiple choice about diagrams of science books.

It reads the published `questions/NAME.json` (images in `images/`, or in `abc_images/` if the options are letters in the
image; `ai2d_test_ids.csv` lists the test split) and the Hub's lmms-lab/ai2d. The layouts follow the descriptions of the
set and the Hub and were not checked against the real files. The prompt and the reading of answers were checked by
running lmms-eval's; the paper scores no generative models.
"""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.choices import Choice, format_options, letter_at, lettered
from tokenprune.evals.tasks.base.task import FileTask, Form, hub
from tokenprune.text_files import read_json, read_text


def read(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter that lmms-eval reads: a leading capital with a period, or one letter alone."""
    match = re.match(r"([A-Z])\.", answer)
    letter = match[1] if match else answer.translate(str.maketrans("", "", string.punctuation)).upper()
    return letter if letter in options else None


def _published(path: Path) -> list[Record]:
    content = read_json(path)
    name = Record(str(path), content).text("imageName")
    listed_ids = path.parent.parent / "ai2d_test_ids.csv"
    test = set(read_text(listed_ids).split()) if listed_ids.is_file() else None
    if test == set():
        raise DataError(f"{listed_ids}: empty; it lists the images of the test split, one per line")
    split = "" if test is None else "test" if name.removesuffix(".png") in test else "train"
    return [
        record.with_fields(question=record["id"], imageName=name).in_split(split)
        for record in json_records(path, "questions")
    ]


@dataclass(frozen=True)
class Ai2d(FileTask[Choice]):
    """Accuracy."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("questions/*.json",), _published), *hub())

    def question(self, record: Record, folder: Path, style: Style) -> Choice:
        options = lettered(record.texts("answerTexts", "options"))
        if record.has("image"):
            image, number = record.image(), record.place
        else:
            place = "abc_images" if record.has("abcLabel") and record.boolean("abcLabel") else "images"
            image = record.find_image(folder, f"{place}/{record.text('imageName')}")
            number = record.identifier("questionId")
        return Choice(
            task=self.name,
            id=f"{self.name}-{number}",
            images=(image,),
            text=style.choice(record.text("question"), format_options(options)),
            split=record.split,
            options=options,
            letter=letter_at(options, record.integer("correctAnswer", "answer"), record.where),
            read=read,
        )

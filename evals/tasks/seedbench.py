"""SEED-Bench (https://arxiv.org/abs/2307.16125): multiple choice about images and video frames.

It reads the published `SEED-Bench.json` (images in `SEED-Bench-image/` or `images/`, named by `data_id`; one frame of
each video, `TYPE_ID_QUESTION_ID.png`, in `SEED-Bench-video-image/` as written by LLaVA-1.5's script) and the Hub's
lmms-lab/SEED-Bench, whose video questions have several frames. Without a folder of frames, the published form's video
questions are left out. The layouts follow the repository and the Hub and were not checked against the real files. The
prompt and the reading of answers were checked by running lmms-eval's; the set's own script compares likelihoods of the
options instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.images import StoredImage
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.choices import Choice, checked_letter, format_options, lettered
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, of_each_category

FRAMES = "SEED-Bench-video-image"


def read(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the letter that lmms-eval reads: the first character. LLaVA-1.5's script accepts a single letter only."""
    letter = answer[:1].upper()
    return letter if letter in options else None


def _published(path: Path) -> list[Record]:
    return json_records(path, "questions")


@dataclass(frozen=True)
class SeedBench(FileTask[Choice]):
    """Accuracy over all, over images (the published SEED-I) and over videos."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("SEED-Bench.json",), _published), *hub())

    def questions(self, records: Sequence[Record], folder: Path, style: Style) -> list[Choice]:
        return [
            self.question(record, folder, style)
            for record in records
            if "image" in record or record.text("data_type") == "image" or (folder / FRAMES).is_dir()
        ]

    def question(self, record: Record, folder: Path, style: Style) -> Choice:
        options = lettered([record.text(f"choice_{letter}") for letter in "abcd"])
        return Choice(
            task=self.name,
            id=f"{self.name}-{record.identifier('question_id')}",
            images=self._images(record, folder),
            text=style.choice(record.text("question"), format_options(options)),
            split=record.split,
            category=record.text("data_type"),
            options=options,
            letter=checked_letter(options, record.text("answer"), record.where),
            read=read,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        of_each = of_each_category(answered)
        return super().metrics(answered) | {f"{kind} accuracy": Metric.of(of_each[kind]) for kind in sorted(of_each)}

    def _images(self, record: Record, folder: Path) -> tuple[StoredImage, ...]:
        if "image" in record:
            return record.images()
        name = record.identifier("data_id")
        if record["data_type"] == "image":
            return (record.find_image(folder, f"SEED-Bench-image/{name}", f"images/{name}", f"images/{name}.jpg"),)
        frame = f"{record.identifier('question_type_id')}_{record.identifier('question_id')}.png"
        return (record.find_image(folder, f"{FRAMES}/{frame}"),)

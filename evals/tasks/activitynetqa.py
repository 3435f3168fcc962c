"""ActivityNet-QA (https://arxiv.org/abs/1906.02467): open questions about videos, answered in a word or two.

It reads the authors' `SPLIT_q.json` and `SPLIT_a.json`, with the videos in `videos/`, named by `video_name`, with or
without ActivityNet's `v_` before it. The layout follows the repository and was not checked against the real files. The
metric is the authors': accuracy of the whole answer, here without regard to case and a final period. Newer papers ask a
chat model whether an answer is right, and their numbers are higher. The prompt has LLaVA-1.5's instruction for short
answers. The bundled clips have this format too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.short_answers import exact
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, of_each_category
from tokenprune.evals.tasks.base.video import VideoAnswer, frames_read

#: The meanings of a question's `type`, in the authors' order.
KINDS = (
    "motion", "spatial relation", "temporal relation", "yes or no", "colour", "object", "place", "number", "other",
)  # fmt: skip
PREFIXES, SUFFIXES = ("v_", ""), (".mp4", ".mkv", ".webm")


def _published(path: Path) -> list[Record]:
    """Return the questions of a split with their answers, from the file beside it."""
    split = path.name.removesuffix("_q.json")
    answers = {record.identifier("question_id"): record for record in json_records(path.with_name(f"{split}_a.json"))}
    records = []
    for record in json_records(path):
        answer = answers.get(record.identifier("question_id"))
        if answer is None:
            raise DataError(f"{record.where}: no answer to {record.identifier('question_id')!r} in {split}_a.json")
        records.append(record.with_fields(answer=answer.text("answer"), type=answer["type"]).in_split(split))
    return records


@dataclass(frozen=True)
class ActivityNetQa(FileTask[VideoAnswer]):
    """Accuracy over all questions and for each kind."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("*_q.json",), _published),)

    def question(self, record: Record, folder: Path, style: Style) -> VideoAnswer:
        name, kind = record.text("video_name"), record.integer("type")
        if not 0 <= kind < len(KINDS):
            raise DataError(f"{record.where}: type {kind} is not one of 0 to {len(KINDS) - 1}; correct the file")
        places = [f"videos/{prefix}{name}{suffix}" for suffix in SUFFIXES for prefix in PREFIXES]
        return VideoAnswer(
            task=self.name,
            id=f"{self.name}-{record.identifier('question_id')}",
            images=(record.find_video(folder, *places),),
            text=style.short_answer(_asked(record.text("question"))),
            split=record.split,
            category=KINDS[kind],
            answers=(record.text("answer"),),
            worth=exact,
            n_frames=frames_read(),
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        of_each = of_each_category(answered)
        return super().metrics(answered) | {f"{kind} accuracy": Metric.of(of_each[kind]) for kind in sorted(of_each)}


def _asked(question: str) -> str:
    """The set's questions have no question mark."""
    return question if question.endswith("?") else f"{question}?"

"""Video-MME (https://arxiv.org/abs/2405.21075): multiple choice about videos of 11 seconds to an hour, no subtitles.

It reads the Hub's lmms-lab/Video-MME, which is how the set is published: `videomme/test-00000-of-00001.parquet`, with
the videos, extracted from the archives, in `data/` or `videos/data/`, or beside the table, named by `videoID`. The
layout follows the repository and was not checked against the real files. Prompt and reading of answers are those of the
authors' evaluation script (checked by reading it); lmms-eval's prompt speaks of subtitles, which it does not show
either.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record
from tokenprune.evals.tasks.base.choices import checked_letter, format_options
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, of_each_category
from tokenprune.evals.tasks.base.video import VideoChoice, frames_read, marked

PROMPT = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option.\n{question}\n{options}\nThe best answer is:"
)
#: What the authors' script removes from an answer, because its words contain option letters.
LEADING = re.compile(r"The (best answer|correct answer|answer|best option|correct option)( is)?|Best (answer|option):")
PLACES = ("data", "videos/data", "videos", ".")
SUFFIXES = (".mp4", ".MP4", ".mkv")


def read(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the first letter of an option that is anywhere in the answer."""
    letter = re.search(f"[{''.join(options)}]", LEADING.sub("", answer))
    return None if letter is None else letter[0]


@dataclass(frozen=True)
class VideoMme(FileTask[VideoChoice]):
    """Accuracy over all, and of short, medium and long videos."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = hub("videomme")

    def question(self, record: Record, folder: Path, style: Style) -> VideoChoice:
        options = marked(record.texts("options"), f"{record.where}, 'options'")
        name = record.text("videoID")
        places = [f"{place}/{name}{suffix}" for place in PLACES for suffix in SUFFIXES]
        return VideoChoice(
            task=self.name,
            id=f"{self.name}-{record.identifier('question_id')}",
            images=(record.find_video(folder, *places),),
            text=PROMPT.format(question=record.text("question"), options=format_options(options)),
            split=record.split,
            category=record.text("duration"),
            options=options,
            letter=checked_letter(options, record.text("answer"), record.where),
            read=read,
            n_frames=frames_read(),
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        of_each = of_each_category(answered)
        return super().metrics(answered) | {f"{kind} accuracy": Metric.of(of_each[kind]) for kind in of_each}

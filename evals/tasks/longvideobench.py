"""LongVideoBench (https://arxiv.org/abs/2407.15754): questions that refer to a part of a video of up to an hour.

It reads `lvb_val.json` of the Hub's longvideobench/LongVideoBench, with the videos, extracted from the archive, in
`videos/`; the answers of the test split are not published. The layout follows the authors' dataset class and was not
checked against the real files. Prompt and reading of answers are those of lmms-eval's `val_v`, without subtitles
(checked by running it), which takes a random letter where there is none; here such an answer is unparsable.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.choices import format_options, letter_at, lettered
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, of_each_category
from tokenprune.evals.tasks.base.video import VideoChoice, frames_read
from tokenprune.evals.tasks.videomme import read


def _published(path: Path) -> list[Record]:
    return [record.in_split("validation") for record in json_records(path)]


@dataclass(frozen=True)
class LongVideoBench(FileTask[VideoChoice]):
    """Accuracy, and that of videos of each length: up to 15, 60, 600 and 3600 seconds."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("lvb_val.json",), _published),)

    def question(self, record: Record, folder: Path, style: Style) -> VideoChoice:
        options = lettered(record.texts("candidates"))
        return VideoChoice(
            task=self.name,
            id=f"{self.name}-{record.identifier('id')}",
            images=(record.find_video(folder, f"videos/{record.text('video_path')}"),),
            text=style.choice(record.text("question"), format_options(options)) + "\n",
            split=record.split,
            category=str(record.integer("duration_group")),
            options=options,
            letter=letter_at(options, record.integer("correct_choice"), record.where),
            read=read,
            n_frames=frames_read(),
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        of_each = of_each_category(answered)
        each = {f"{kind} s accuracy": Metric.of(of_each[kind]) for kind in sorted(of_each, key=int)}
        return super().metrics(answered) | each

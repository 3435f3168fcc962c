"""MLVU (https://arxiv.org/abs/2406.04264), its seven public multiple-choice tasks: videos of 3 minutes to 2 hours.

It reads the authors' MLVU/MVLU on the Hub, `MLVU/json/NUMBER_TASK.json`, videos in `MLVU/video/NUMBER_TASK/`; and
lmms-eval's sy1998/MLVU_dev, `mlvu/`, with the videos, extracted from the archives, in `videos/` or beside the
archives. Its questions have the options in further lines. The two generation tasks, which GPT-4 scores, are left out.
The layouts follow the authors' and lmms-eval's scripts and were not checked against the real files. The prompt is the
authors', without their system prompt and the beginning of the answer. Letters are read by VLMEvalKit's rules; the
authors' script wants nothing but the letter before a bracket.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.choices import checked_letter, infer_letter, lettered
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, mean_of_categories, of_each_category
from tokenprune.evals.tasks.base.video import VideoChoice, frames_read


def _published(path: Path) -> list[Record]:
    records = enumerate(json_records(path))
    return [record.with_fields(place=path.stem, question_id=f"{path.stem}-{number}") for number, record in records]


@dataclass(frozen=True)
class Mlvu(FileTask[VideoChoice]):
    """Accuracy over questions, the mean of the seven tasks (the published M-Avg), and each task."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (
        Form(("MLVU/json/[1-7]_*.json",), _published),
        Form(("json/[1-7]_*.json",), _published),
        *hub("mlvu"),
    )

    def question(self, record: Record, folder: Path, style: Style) -> VideoChoice:
        options, answer = lettered(record.texts("candidates")), record.text("answer")
        letters = [letter for letter, text in options.items() if text == answer]
        name = record.text("video", "video_name")
        places = [f"MLVU/video/{record['place']}", f"video/{record['place']}"] if "place" in record else ["videos", "."]
        asked = record.text("question").partition("\n")[0]
        listed = "\n".join(f"({letter}) {text}" for letter, text in options.items())
        return VideoChoice(
            task=self.name,
            id=f"{self.name}-{record.identifier('question_id') if 'question_id' in record else record.place}",
            images=(record.find_video(folder, *(f"{place}/{name}" for place in places)),),
            text=f"Question: {asked}\nOptions:\n{listed}\nOnly give the best option.",
            category=record.text("question_type", "task_type"),
            options=options,
            letter=letters[0] if letters else checked_letter(options, answer, record.where),
            read=infer_letter,
            n_frames=frames_read(),
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        of_each = of_each_category(answered)
        each = {task.replace("_", " "): Metric.of(of_each[task]) for task in sorted(of_each)}
        return super().metrics(answered) | {"mean of tasks": mean_of_categories(answered)} | each

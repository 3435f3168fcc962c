"""EgoSchema (https://arxiv.org/abs/2308.09126): multiple choice about three minutes seen through somebody's eyes.

It reads the authors' `questions.json`, of which `subset_answers.json` has the public answers, with the videos in
`videos/` or `good_clips_git/`, named by `q_uid`; and the Hub's lmms-lab/egoschema (its folder `Subset`, whose 500
questions have answers; videos in `videos/`). Questions without a public answer are left out. The layouts follow the
repositories and were not checked against the real files. The prompt is lmms-eval's, which has LLaVA-1.5's instruction
(checked by reading it); the authors' own is for language models. Letters are read by VLMEvalKit's rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.fields import as_object
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.choices import format_options, infer_letter, letter_at, lettered
from tokenprune.evals.tasks.base.task import FileTask, Form, hub
from tokenprune.evals.tasks.base.video import VideoChoice, frames_read, marked
from tokenprune.text_files import read_json

ANSWERS = "subset_answers.json"
PLACES = ("videos", "good_clips_git", ".")


def _published(path: Path) -> list[Record]:
    """Return the questions whose answers are public."""
    where = path.with_name(ANSWERS)
    answers = as_object(read_json(where), str(where))
    return [
        record.with_fields(answer=answers[record.text("q_uid")])
        for record in json_records(path)
        if record.text("q_uid") in answers
    ]


@dataclass(frozen=True)
class EgoSchema(FileTask[VideoChoice]):
    """Accuracy."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("questions.json",), _published), *hub("Subset"))

    def questions(self, records: Sequence[Record], folder: Path, style: Style) -> list[VideoChoice]:
        return [self.question(record, folder, style) for record in records if record.has("answer")]

    def question(self, record: Record, folder: Path, style: Style) -> VideoChoice:
        if "option" in record:
            options = marked(record.texts("option"), f"{record.where}, 'option'")
        else:
            options = lettered([record.text(f"option {number}") for number in range(5)])
        name = record.text("q_uid", "video_idx")
        return VideoChoice(
            task=self.name,
            id=f"{self.name}-{name}",
            images=(record.find_video(folder, *(f"{place}/{name}.mp4" for place in PLACES)),),
            text=style.choice(record.text("question"), format_options(options)),
            split=record.split,
            options=options,
            letter=letter_at(options, record.integer("answer"), record.where),
            read=infer_letter,
            n_frames=frames_read(),
        )

"""TextVQA (https://arxiv.org/abs/1904.08920): questions about text in images, with ten answers each.

It reads the published `TextVQA_0.5.1_SPLIT.json` (images in `train_images/`, also for val, or `images/`) and the
Hub's lmms-lab/textvqa. The prompt has no OCR tokens (LLaVA-1.5's own script adds them). The layouts follow the set's
download page and the Hub and were not checked against the real files. The metric was checked by running lmms-eval's,
whose prompts begin with a capital.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.short_answers import ShortAnswer
from tokenprune.evals.tasks.base.task import FileTask, Form, hub
from tokenprune.evals.tasks.base.vqa_accuracy import normal_accuracy, two_or_more


def _published(path: Path) -> list[Record]:
    return [record.in_split(record.text("set_name")) for record in json_records(path, "data")]


@dataclass(frozen=True)
class TextVqa(FileTask[ShortAnswer]):
    """Soft accuracy of ten answers."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("TextVQA_*.json",), _published), *hub())

    def question(self, record: Record, folder: Path, style: Style) -> ShortAnswer:
        record.check_answered()
        if record.has("image"):
            image = record.image()
        else:
            name = f"{record.identifier('image_id')}.jpg"
            image = record.find_image(folder, f"train_images/{name}", f"test_images/{name}", f"images/{name}")
        return ShortAnswer(
            task=self.name,
            id=f"{self.name}-{record.identifier('question_id')}",
            images=(image,),
            text=style.short_answer(record.text("question")),
            split=record.split,
            answers=two_or_more(record.texts("answers"), record.where),
            worth=normal_accuracy,
        )

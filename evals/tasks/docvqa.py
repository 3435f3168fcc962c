"""DocVQA (https://arxiv.org/abs/2007.00398), task 1: questions about scanned documents.

It reads the published `SPLIT_v1.0_withQT.json` (`val_v1.0.json` too; images under the names in the file, in
`documents/` or `spdocvqa_images/`) and the Hub's lmms-lab/DocVQA. The layouts follow the challenge's page and the Hub
and were not checked against the real files. The answers of `test` are not published. The metric is that of the
challenge's script, checked by running lmms-eval's copy.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.short_answers import ShortAnswer, anls
from tokenprune.evals.tasks.base.task import FileTask, Form, hub


def _published(path: Path) -> list[Record]:
    return [record.in_split(record.text("data_split")) for record in json_records(path, "data")]


@dataclass(frozen=True)
class DocVqa(FileTask[ShortAnswer]):
    """Average normalised Levenshtein similarity."""

    metric: ClassVar[str] = "ANLS"
    forms: ClassVar[tuple[Form, ...]] = (Form(("*_v1.0*.json",), _published), *hub("DocVQA"))

    def question(self, record: Record, folder: Path, style: Style) -> ShortAnswer:
        image = record["image"]
        if isinstance(image, str):
            image = record.find_image(folder, image, f"spdocvqa_images/{PurePosixPath(image).name}")
        else:
            image = record.image()
        record.check_answered()
        return ShortAnswer(
            task=self.name,
            id=f"{self.name}-{record.identifier('questionId')}",
            images=(image,),
            text=style.short_answer(record.text("question")),
            split=record.split,
            max_new_tokens=64,
            answers=tuple(record.texts("answers")),
            worth=anls,
        )

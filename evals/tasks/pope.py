"""POPE (https://arxiv.org/abs/2305.10355): is an object in the image? The objects are random, popular or adversarial.

It reads the published `coco_pope_KIND.json` (one JSON object per line; the images are COCO's val2014, in `images/`) and
the Hub's lmms-lab/POPE. The kinds are the splits. The published form was checked against records of the real file; the
reading of answers, F1 and yes-rate against the repository's evaluate.py (AoiDragon/POPE); the prompt, F1, precision and
recall by running lmms-eval's. The Hub's layout follows its description.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record, line_records
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub
from tokenprune.evals.tasks.base.yes_no import YesNo, f1_and_yes_rate


def read(answer: str) -> bool | None:
    """Return what the published scorer reads: no if `No`, `no` or `not` is a word of the first sentence, else yes.

    Words are split at spaces after commas are removed. None if the answer is empty, which the published scorer takes as
    a yes.
    """
    words = answer.split(".")[0].replace(",", "").split(" ")
    return None if not answer.strip() else not {"No", "no", "not"} & set(words)


def _published(path: Path) -> list[Record]:
    kind = path.stem.rsplit("_", 1)[-1]
    return [record.in_split(kind) for record in line_records(path)]


@dataclass(frozen=True)
class Pope(FileTask[YesNo]):
    """Accuracy, F1, precision and recall of yes, and the share of answers that are yes."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("*pope_*.json",), _published), *hub("Full"))

    def question(self, record: Record, folder: Path, style: Style) -> YesNo:
        kind = record.text_or_empty("category") or record.split
        name, label = record["image"], record.text("label", "answer").strip().lower()
        if label not in ("yes", "no"):
            raise DataError(f"{record.where}: the right answer {label!r} is neither yes nor no; correct the file")
        return YesNo(
            task=self.name,
            id=f"{self.name}-{kind}-{record.identifier('question_id')}",
            images=(record.find_image(folder, f"images/{name}") if isinstance(name, str) else record.image(),),
            text=style.short_answer(record.text("text", "question")),
            split=record.split,
            category=kind,
            max_new_tokens=16,
            truth=label == "yes",
            read=read,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        return super().metrics(answered) | f1_and_yes_rate(answered)

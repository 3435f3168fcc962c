"""GQA (https://arxiv.org/abs/1902.09506): compositional questions with one answer each.

It reads the published `SPLIT_questions.json`, such as `testdev_balanced_questions.json` (an object of questions by ID;
images in `images/`), and the Hub's lmms-lab/GQA, which has questions and images in two folders. The layouts
follow the download page and the Hub and were not checked against the real files.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.hub import table_records
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.metric import Metric, Ratio
from tokenprune.evals.tasks.base.short_answers import ShortAnswer, exact
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, points


def _published(path: Path) -> list[Record]:
    return [record.in_split(path.stem.removesuffix("_questions")) for record in json_records(path)]


def _hub(path: Path) -> list[Record]:
    """Return the questions, with their images from the folder beside."""
    name = path.parent.name.removesuffix("_instructions")
    beside = sorted(path.parent.with_name(f"{name}_images").glob("*.parquet"))
    stored = [(record.where, record) for file in beside for record in table_records(file)]
    images = {called: record.image() for called, record in fields.by_key(stored, "id").items()}
    records = []
    for record in table_records(path):
        if record.identifier("imageId") not in images:
            raise DataError(f"{record.where}: no image {record['imageId']!r} in {path.parent.parent}/{name}_images")
        records.append(record.with_fields(image=images[record["imageId"]]).in_split(name))
    return records


@dataclass(frozen=True)
class Gqa(FileTask[ShortAnswer]):
    """Accuracy over all, binary and open questions; open ones have the structural type `query`.

    The published scorer compares exactly (checked by reading its eval.py). As in LLaVA's script, case, a final period
    and surrounding spaces are ignored first. Validity, plausibility, consistency, grounding and distribution need
    further files and are not computed.
    """

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (
        Form(("*_questions.json",), _published),
        Form(("*_instructions/*.parquet",), _hub),
    )

    def question(self, record: Record, folder: Path, style: Style) -> ShortAnswer:
        where = f"{record.where}, 'types'"
        own = record.has("image")
        image = record.image() if own else record.find_image(folder, f"images/{record.identifier('imageId')}.jpg")
        kinds = record["types"] if record.has("types") else {}
        structural = fields.field(
            {"structural": None, **kinds} if isinstance(kinds, dict) else kinds, "structural", where
        )
        return ShortAnswer(
            task=self.name,
            id=f"{self.name}-{record.identifier('id')}",
            images=(image,),
            text=style.short_answer(record.text("question")),
            split=record.split,
            category="" if structural is None else fields.as_text(structural, where),
            answers=(record.text("answer"),),
            worth=exact,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        kinds = ["open" if question.category == "query" else "binary" for question, _ in answered if question.category]
        of_each = Ratio.mean(points(answered)).of_each(kinds) if len(kinds) == len(answered) else {}
        return super().metrics(answered) | {f"{kind} accuracy": Metric.of(of_each[kind]) for kind in sorted(of_each)}

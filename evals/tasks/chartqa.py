"""ChartQA (https://arxiv.org/abs/2203.10244): questions about charts, by people (`human`) and generated (`augmented`).

It reads the published `SPLIT/SPLIT_human.json` and `SPLIT_augmented.json` (images in `SPLIT/png/`), and the Hub's
lmms-lab/ChartQA and HuggingFaceM4/ChartQA. The layouts follow the repository and the Hub and were not checked
against the real files. The prompt and the metric were checked by running lmms-eval's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.short_answers import ShortAnswer, relaxed
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, of_each_category

ONE_WORD = "Answer the question with a single word."


def _published(path: Path) -> list[Record]:
    split, kind = path.stem.rsplit("_", 1)
    return [record.with_fields(type=kind, folder=path.parent).in_split(split) for record in json_records(path)]


@dataclass(frozen=True)
class ChartQa(FileTask[ShortAnswer]):
    """Relaxed accuracy, over all questions and for each kind."""

    metric: ClassVar[str] = "relaxed accuracy"
    forms: ClassVar[tuple[Form, ...]] = (
        Form(("*_human.json", "*_augmented.json"), _published),
        Form(("*/*_human.json", "*/*_augmented.json"), _published),
        *hub(),
    )

    def question(self, record: Record, folder: Path, style: Style) -> ShortAnswer:
        if record.has("image"):
            image = record.image()
        else:
            place = record["folder"].relative_to(folder).as_posix()
            image = record.find_image(folder, f"{place}/png/{record.text('imgname')}")
        label = record.key("label", "answer")
        kind = record.text_or_empty("type").removesuffix("_test")
        if not kind:
            kind = "augmented" if record.boolean("human_or_machine") else "human"
        question = record.text("query", "question")
        return ShortAnswer(
            task=self.name,
            id=f"{self.name}-{record.place}",
            images=(image,),
            text=f"{question}\n{ONE_WORD}" if style.instructions else question,
            split=record.split,
            category=kind,
            answers=(record.text(label),) if isinstance(record[label], str) else tuple(record.texts(label)),
            worth=relaxed,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        of_each = of_each_category(answered)
        return super().metrics(answered) | {kind: Metric.of(ratio) for kind, ratio in of_each.items()}

"""LRS-VQA (https://arxiv.org/abs/2503.07588): questions about large remote-sensing images, up to 27,328 px wide.

It reads the published `LRS_VQA_merged.jsonl`, or one file per source (`*.jsonl`; images under the names in the file, in
`image/`, `images/` or the folder itself). The published prompt is the record's `text` as it is. The published scorer
(VisionXLab/LRS-VQA, evaluation_LRSVQA.py, read but not run) compares in lower case and accepts an answer that shares a
WordNet synset with the true one; here a final period is ignored too. It scores each source (FAIR, Bridge, STAR)
separately, so use one file at a time for that. Its rule for synonyms agreed on 1,681 pairs of words with WordNet 3.1.
The layout follows the scripts and was not checked against the real files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.evals.models.prompt_styles import LLAVA, Style
from tokenprune.evals.reading.records import Record, line_records
from tokenprune.evals.tasks.base.metric import Metric
from tokenprune.evals.tasks.base.short_answers import ShortAnswer
from tokenprune.evals.tasks.base.synonyms import exact_or_synonym, wordnet
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, mean_of_categories


@dataclass(frozen=True)
class LrsVqa(FileTask[ShortAnswer]):
    """Accuracy over questions (the published OA), and the mean of the categories' accuracies (AA)."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("*.jsonl",), line_records),)

    def load(self, folder: Path, split: str | None = None, style: Style = LLAVA) -> Sequence[ShortAnswer]:
        questions = super().load(folder, split, style)
        wordnet()  # if it is missing, fail now and not after the first answer
        return questions

    def question(self, record: Record, folder: Path, style: Style) -> ShortAnswer:
        image = record.text("image")
        return ShortAnswer(
            task=self.name,
            id=f"{self.name}-{record.identifier('question_id', 'id')}",
            images=(record.find_image(folder, image, f"image/{image}", f"images/{image}"),),
            text=record.text("text"),
            category=record.text("category"),
            answers=(record.text("ground_truth"),),
            worth=exact_or_synonym,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        return super().metrics(answered) | {"mean of categories": mean_of_categories(answered)}

"""HallusionBench (https://arxiv.org/abs/2310.14566): yes or no to figures, of which some contradict common knowledge.

It reads split `image` of the Hub's lmms-lab/HallusionBench, whose layout follows lmms-eval's task and was not checked
against the real files; questions without an image are left out. The prompt is the question alone. The authors let
GPT-4 compare answers with the truth. Here an answer is a yes if it contains "yes", else a no: a rule in lmms-eval that
needs no GPT-4, checked by running it. Numbers in papers are mostly GPT-4's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record
from tokenprune.evals.tasks.base.metric import Metric, Ratio
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, points
from tokenprune.evals.tasks.base.yes_no import YesNo


def read(answer: str) -> bool | None:
    """Return whether the answer contains yes in any case; None if it is empty, which lmms-eval takes as a no."""
    return "yes" in answer.lower() if answer.strip() else None


@dataclass(frozen=True, kw_only=True)
class FigureQuestion(YesNo):
    """A question about a figure. figure: the figure; asked: the question, which is asked about several figures."""

    figure: str
    asked: str


@dataclass(frozen=True)
class HallusionBench(FileTask[FigureQuestion]):
    """Accuracy of all answers (aAcc), and the share of questions (qAcc) and figures (fAcc) without a wrong answer."""

    metric: ClassVar[str] = "aAcc"
    forms: ClassVar[tuple[Form, ...]] = hub()

    def questions(self, records: Sequence[Record], folder: Path, style: Style) -> Sequence[FigureQuestion]:
        return super().questions([record for record in records if record.has("image")], folder, style)

    def question(self, record: Record, folder: Path, style: Style) -> FigureQuestion:
        category, truth = record.text("category"), str(record.identifier("gt_answer"))
        if truth not in ("0", "1"):
            raise DataError(f"{record.where}: the right answer {truth!r} is neither 0 nor 1; correct the file")
        of_set = f"{category}-{record.text('subcategory')}-{record.identifier('set_id')}"
        figure, asked = record.identifier("figure_id"), record.identifier("question_id")
        return FigureQuestion(
            task=self.name,
            id=f"{self.name}-{of_set}-{figure}-{asked}",
            images=(record.image(),),
            text=record.text("question"),
            split=record.split,
            category=category,
            group=of_set,
            max_new_tokens=128,
            truth=truth == "1",
            read=read,
            figure=f"{of_set}-{figure}",
            asked=f"{of_set}-{asked}",
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        questions = [question for question, _ in answered if isinstance(question, FigureQuestion)]
        groups = {
            "qAcc": [question.asked for question in questions],
            "fAcc": [question.figure for question in questions],
        }
        worths = points(answered)
        return super().metrics(answered) | {
            name: Metric.of(Ratio.mean_of_groups(worths, group, min)) for name, group in groups.items()
        }

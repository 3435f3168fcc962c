"""MME (https://arxiv.org/abs/2306.13394): two questions about each image, one with the answer yes, the other with no.

It reads the published folders, one per subtask, with `NAME.txt` (`QUESTION<tab>ANSWER`, two lines) beside `NAME.jpg` or
`.png`, or in `questions_answers_YN/` and `images/`; and the Hub's lmms-lab/MME. As in LLaVA-1.5's scripts, its own
instruction replaces the words "Please answer yes or no." The layouts follow the descriptions of the set and the Hub and
were not checked against the real files. The prompt, the reading of answers, perception and cognition were checked by
running lmms-eval's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading.records import Record
from tokenprune.evals.tasks.base.metric import Metric, Ratio
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, hub, points
from tokenprune.evals.tasks.base.yes_no import YesNo
from tokenprune.text_files import read_lines

COGNITION = frozenset({"commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"})
YES_OR_NO = " Please answer yes or no."


def read(answer: str) -> bool | None:
    """Return what the published scorer reads: a yes or no among the first four letters.

    Case, periods and leading spaces are ignored, and a single letter is enough, as in lmms-eval.
    """
    start = answer.strip().lower().replace(".", "")[:4]
    return True if "yes" in start or start == "y" else False if "no" in start or start == "n" else None


def _published(path: Path) -> list[Record]:
    apart = path.parent.name == "questions_answers_YN"
    subtask = path.parent.parent if apart else path.parent
    records = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        question, tab, answer = line.rpartition("\t")
        if not tab:
            raise DataError(f"{where}: expected QUESTION<tab>ANSWER, found no tab")
        record = Record(where, {})
        place = f"{subtask.name}/images" if apart else subtask.name
        image = record.find_image(subtask.parent, *(f"{place}/{path.stem}{end}" for end in (".jpg", ".png")))
        content = {"question": question, "answer": answer, "category": subtask.name, "image": image}
        records.append(Record(where, {**content, "question_id": f"{subtask.name}/{image.name}"}))
    if len(records) != 2:
        raise DataError(f"{path}: {len(records)} questions; MME has two about each image")
    return records


@dataclass(frozen=True)
class Mme(FileTask[YesNo]):
    """Accuracy over questions; accuracy+ over images, with both questions right; and their sums over subtasks.

    Perception and cognition are the published scores: the sum over subtasks of 100 (accuracy + accuracy+).
    """

    metric: ClassVar[str] = "accuracy"
    sums: ClassVar[frozenset[str]] = frozenset({"perception", "cognition"})
    forms: ClassVar[tuple[Form, ...]] = (
        Form(("*/*.txt", "*/questions_answers_YN/*.txt"), _published),
        *hub(),
    )

    def question(self, record: Record, folder: Path, style: Style) -> YesNo:
        question = record.text("question").strip()
        truth = record.text("answer").strip().lower().rstrip(".")
        if truth not in ("yes", "no"):
            raise DataError(f"{record.where}: answer {record['answer']!r} is neither Yes nor No; correct the file")
        return YesNo(
            task=self.name,
            id=f"{self.name}-{record.identifier('question_id')}-{truth}",
            images=(record.image(),),
            text=style.short_answer(question.replace(YES_OR_NO, "")),
            category=record.text("category"),
            group=f"{record['category']}/{record['question_id']}",
            max_new_tokens=16,
            truth=truth == "yes",
            read=read,
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        scores, subtasks = points(answered), [question.category for question, _ in answered]
        both = Ratio.mean_of_groups(scores, [question.group for question, _ in answered], min)
        sums: dict[str, list[Ratio]] = {"perception": [], "cognition": []}
        for ratio in (Ratio.mean(scores), both):
            for subtask, of_subtask in ratio.of_each(subtasks).items():
                sums["cognition" if subtask in COGNITION else "perception"].append(of_subtask)
        return (
            super().metrics(answered)
            | {"accuracy+": Metric.of(both)}
            | {name: Metric.of(*ratios, weight=100.0) for name, ratios in sums.items() if ratios}
        )

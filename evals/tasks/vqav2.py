"""VQAv2 as distributed: `*questions.json` and `*annotations.json`, with ten answers to each question.

It reads the Hub's lmms-lab/VQAv2 too. The layouts and the image names follow the official download page and the Hub and
were not checked against the real files, which were not available. The metric was checked by running the official
script, the prompt by running lmms-eval's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import LLAVA, Style
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.allowed import find_inside
from tokenprune.evals.reading.coco import Instances
from tokenprune.evals.reading.images import StoredImage
from tokenprune.evals.reading.records import Record, only_file
from tokenprune.evals.tasks.base.short_answers import ShortAnswer
from tokenprune.evals.tasks.base.task import FileTask, Form, check_questions, choose_splits, hub
from tokenprune.evals.tasks.base.vqa_accuracy import soft_accuracy, two_or_more
from tokenprune.text_files import read_json


@dataclass(frozen=True)
class Vqav2(FileTask[ShortAnswer]):
    """Soft accuracy of open questions with ten people's answers each."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = hub()

    def files(self, folder: Path) -> Sequence[Path]:
        path = only_file(folder, "*questions.json")
        return super().files(folder) if path is None else [path]

    def load(self, folder: Path, split: str | None = None, style: Style = LLAVA) -> Sequence[ShortAnswer]:
        """Return the questions in `split`; None means all but `train`.

        `folder` holds both files, and the images in `images/` under COCO's names or those in `instances.json`. A
        question has the split that `instances.json` gives its image. Published files hold one split each and do not
        name it, so a question may have none.
        """
        questions_path = only_file(folder, "*questions.json")
        annotations_path = only_file(folder, "*annotations.json")
        if questions_path is None and super().files(folder):
            return super().load(folder, split, style)
        if questions_path is None or annotations_path is None:
            raise DataError(
                f"{folder}: needs a *questions.json and a *annotations.json. Questions of your own belong "
                "in questions.jsonl, one object per line"
            )
        questions, answers = read_json(questions_path), _Answers(annotations_path)
        images = _ImageFiles(folder, fields.text(questions, "data_subtype", str(questions_path)))
        records = {
            f"{questions_path}, questions[{number}]": record
            for number, record in enumerate(fields.items(questions, "questions", str(questions_path)))
        }
        split_of = {where: images.split(fields.integer(record, "image_id", where)) for where, record in records.items()}
        splits = choose_splits(
            split, set(split_of.values()), f"{questions_path}, by the 'split' of images in instances.json"
        )
        asked = [
            self._question(
                Record(where, record, split_of[where]),
                images.find(fields.integer(record, "image_id", where), where),
                answers.to(fields.identifier(record, "question_id", where), where),
                style,
            )
            for where, record in records.items()
            if split_of[where] in splits
        ]
        return check_questions(asked, str(questions_path))

    def question(self, record: Record, folder: Path, style: Style) -> ShortAnswer:
        record.check_answered()
        answers = _of_people(record.items("answers"), record.where)
        return self._question(record, record.image(), answers, style)

    def _question(self, record: Record, image: StoredImage, answers: tuple[str, ...], style: Style) -> ShortAnswer:
        return ShortAnswer(
            task=self.name,
            id=f"{self.name}-{record.identifier('question_id')}",
            images=(image,),
            text=style.short_answer(record.text("question")),
            split=record.split,
            answers=answers,
            worth=soft_accuracy,
        )


class _Answers:
    def __init__(self, path: Path) -> None:
        self.path = path
        records = fields.items(read_json(path), "annotations", str(path))
        places = ((f"{path}, annotations[{number}]", record) for number, record in enumerate(records))
        self.by_question = fields.by_key(places, "question_id")

    def to(self, question_id: str | int, where: str) -> tuple[str, ...]:
        if question_id not in self.by_question:
            raise DataError(f"{where}: question_id {question_id!r} has no answers in {self.path}")
        here = f"{self.path}, question_id {question_id}"
        return _of_people(fields.items(self.by_question[question_id], "answers", here), here)


def _of_people(answers: Sequence[Any], where: str) -> tuple[str, ...]:
    """Return the answers, each by a different person."""
    if all(isinstance(answer, dict) and "answer_id" in answer for answer in answers):
        fields.by_key([(where, answer) for answer in answers], "answer_id")
    return two_or_more([fields.text(answer, "answer", where) for answer in answers], where)


class _ImageFiles:
    def __init__(self, folder: Path, subtype: str) -> None:
        self.folder, self.subtype = folder, subtype
        instances = folder / "instances.json"
        self.named = Instances(folder).images if instances.is_file() else {}

    def split(self, image_id: int) -> str:
        record = self.named.get(image_id, {})
        return fields.text(record, "split", f"instances.json, image {image_id}") if "split" in record else ""

    def find(self, image_id: int, where: str) -> Path:
        """Return an image's file: COCO_val2014_000000000042.jpg in COCO 2014, 000000000042.jpg in COCO 2017."""
        names = [f"COCO_{self.subtype}_{image_id:012d}.jpg", f"{image_id:012d}.jpg"]
        if image_id in self.named:
            names.insert(0, fields.text(self.named[image_id], "file_name", f"instances.json, image {image_id}"))
        return find_inside(self.folder, [f"images/{name}" for name in names], where)

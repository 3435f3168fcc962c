"""VQAv2 as it is distributed: `*questions.json` and `*annotations.json`, ten answers to each question.

The layout and the picture names are those of the official download page; they were not checked against the real
files, which cannot be had where this was written.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tokenprune.evals.coco import Instances
from tokenprune.evals.records import field, only_file, read_json
from tokenprune.evals.sample import Sample
from tokenprune.evals.vqa_accuracy import soft_accuracy


@dataclass(frozen=True)
class VqaSample(Sample):
    """One question and what ten people answered."""

    task: ClassVar[str] = "vqa"
    metric: ClassVar[str] = "accuracy"

    text: str
    answers: tuple[str, ...]

    @property
    def question(self) -> str:
        return self.text

    def score(self, answer: str) -> float | None:
        """Return the official soft accuracy; an empty answer cannot be read."""
        return soft_accuracy(answer, self.answers) if answer.strip() else None


def load(folder: Path) -> list[VqaSample]:
    """Return one sample for each question; `folder` holds both files, and the pictures in `images/`.

    Pictures are named as COCO names them, or as an `instances.json` in the folder says.
    """
    questions_path, annotations_path = (
        only_file(folder, "*questions.json"),
        only_file(folder, "*annotations.json"),
    )
    if questions_path is None or annotations_path is None:
        raise FileNotFoundError(f"{folder}: needs a *questions.json and a *annotations.json")
    questions, annotations = read_json(questions_path), read_json(annotations_path)
    answers = {
        field(record, "question_id", f"{annotations_path}, annotations[{number}]"): record
        for number, record in enumerate(field(annotations, "annotations", str(annotations_path)))
    }
    pictures = _Pictures(folder, field(questions, "data_subtype", str(questions_path)))
    samples = []
    for number, record in enumerate(field(questions, "questions", str(questions_path))):
        where = f"{questions_path}, questions[{number}]"
        question_id = field(record, "question_id", where)
        if question_id not in answers:
            raise ValueError(f"{where}: question_id {question_id} has no answers in {annotations_path}")
        samples.append(
            VqaSample(
                id=f"vqa-{question_id}",
                image=pictures.find(field(record, "image_id", where), where),
                split="",
                text=field(record, "question", where),
                answers=_answers(answers[question_id], f"{annotations_path}, question_id {question_id}"),
            )
        )
    return samples


def _answers(record: dict[str, Any], where: str) -> tuple[str, ...]:
    answers = tuple(field(answer, "answer", where) for answer in field(record, "answers", where))
    if len(answers) < 2:
        raise ValueError(f"{where}: {len(answers)} answers; the metric leaves one out, so it needs two (VQAv2 has ten)")
    return answers


class _Pictures:
    def __init__(self, folder: Path, subtype: str) -> None:
        self.folder, self.subtype = folder / "images", subtype
        instances = folder / "instances.json"
        self.named = Instances(folder).images if instances.is_file() else {}

    def find(self, image_id: int, where: str) -> Path:
        """COCO 2014 calls it COCO_val2014_000000000042.jpg, COCO 2017 calls it 000000000042.jpg."""
        names = [f"COCO_{self.subtype}_{image_id:012d}.jpg", f"{image_id:012d}.jpg"]
        if image_id in self.named:
            names.insert(0, field(self.named[image_id], "file_name", f"instances.json, image {image_id}"))
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise FileNotFoundError(f"{where}: missing picture {self.folder / names[0]} (or {' or '.join(names[1:])})")

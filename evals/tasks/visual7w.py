"""Visual7W's pointing questions (https://arxiv.org/abs/1511.03416): which of four boxes?

It reads the published `dataset_v7w_pointing.json`, images in `images/`. The prompt is that of Shikra's code
(https://arxiv.org/abs/2306.15195), with the four boxes in the model's own format, here in the order of their IDs. An
answered box counts as the one of the four that it overlaps most. The layout follows the download page and was not
checked against the real files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.boxes import Box, iou
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.coco import check_inside, from_corner
from tokenprune.evals.reading.images import size_of
from tokenprune.evals.reading.records import Record, json_records
from tokenprune.evals.tasks.base.box import BoxQuestion
from tokenprune.evals.tasks.base.task import FileTask, Form


@dataclass(frozen=True, kw_only=True)
class WhichBox(BoxQuestion):
    """A choice between boxes. candidates: the boxes by ID, in pixels. right: the ID of the true one."""

    candidates: Mapping[int, Box]
    right: int

    def score(self, answer: str) -> float | None:
        box = self.answered_box(answer)
        if box is None:
            return None
        overlaps = {name: iou(box, candidate) for name, candidate in self.candidates.items()}
        return float(overlaps[self.right] > 0 and overlaps[self.right] == max(overlaps.values()))


def _published(path: Path) -> list[Record]:
    boxes = fields.by_key([(box.where, box) for box in json_records(path, "boxes")], "box_id")
    records = []
    for image in json_records(path, "images"):
        for number, question in enumerate(image.items("qa_pairs")):
            where = f"{image.where}, qa_pairs[{number}]"
            others = [{"box": box} for box in fields.items(question, "multiple_choices", where)]
            names = sorted(
                [fields.integer(question, "answer", where), *(fields.integer(box, "box", where) for box in others)]
            )
            if len(set(names)) < 4 or len(names) > 4:
                raise DataError(f"{where}: the boxes to choose from are {names}; expected four different ones")
            missing = [name for name in names if name not in boxes]
            if missing:
                raise DataError(f"{where}: box {missing[0]} is not among the boxes of {path}")
            content = {**question, "filename": image.text("filename"), "boxes": {name: boxes[name] for name in names}}
            records.append(Record(where, content, image.text("split")))
    return records


def _corners(box: Record) -> Box:
    return from_corner([box["x"], box["y"], box["width"], box["height"]], box.where)


@dataclass(frozen=True)
class Visual7w(FileTask[WhichBox]):
    """Accuracy."""

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("dataset_v7w_pointing.json",), _published),)

    def question(self, record: Record, folder: Path, style: Style) -> WhichBox:
        image = record.find_image(folder, f"images/{record['filename']}")
        size = size_of(image)
        candidates = {name: _corners(box) for name, box in record["boxes"].items()}
        for name, box in candidates.items():
            check_inside(box, size, record["boxes"][name].where)
        written = " ".join(style.write(box, size) for box in candidates.values())
        return WhichBox(
            task=self.name,
            id=f"{self.name}-{record.identifier('qa_id')}",
            images=(image,),
            text=f"{record.text('question')} Candidates: {written} answer in box format.",
            split=record.split,
            max_new_tokens=style.boxes.max_new_tokens,
            size=size,
            style=style,
            candidates=candidates,
            right=record.integer("answer"),
        )

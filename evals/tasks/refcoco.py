"""RefCOCO, RefCOCO+ and RefCOCOg as distributed: `instances.json` and `refs(NAME).p`.

NAME says who split the set: `unc` and `google` for RefCOCO, `unc` for RefCOCO+, `umd` and `google` for RefCOCOg. It
reads the pickle (a list of refs, written by Python 2), the same list as JSON, and the Hub's lmms-lab/RefCOCO,
RefCOCOplus and RefCOCOg. The layouts follow the documentation of the `refer` tool and the Hub and were not checked
against the real files, which were not available.

By its cards, the Hub's `val` of RefCOCO (8,811 refs) and of RefCOCOg (7,573) are as large as the validation splits of
UNC (3,811) or UMD (2,573) and of Google (5,000) together, and RefCOCO's `test` as Google's (5,000). Both draw from the
same refs, so one may be there twice; it is asked once.
"""

import pickle
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from tokenprune.errors import DataError
from tokenprune.evals.boxes import HIT, Box, Size, centre, contains, iou
from tokenprune.evals.models.prompt_styles import LLAVA, Style
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.coco import Instances, check_inside, from_corner
from tokenprune.evals.reading.hub import table_records
from tokenprune.evals.reading.images import StoredImage, size_of
from tokenprune.evals.reading.records import Record, only_file
from tokenprune.evals.tasks.base.box import BoxQuestion
from tokenprune.evals.tasks.base.metric import Metric, Ratio
from tokenprune.evals.tasks.base.question import identities
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, check_questions, choose_splits, hub
from tokenprune.text_files import read_json


@dataclass(frozen=True, kw_only=True)
class RefCocoQuestion(BoxQuestion):
    """A referring expression and the true box, in pixels."""

    expression: str
    box: Box

    def score(self, answer: str) -> float | None:
        """Return whether the answered box has an IoU of at least 0.5 with the true one, None if there is none."""
        box = self.answered_box(answer)
        return None if box is None else float(iou(box, self.box) >= HIT)

    def iou(self, answer: str) -> float:
        box = self.answered_box(answer)
        return 0.0 if box is None else iou(box, self.box)

    def hits_centre(self, answer: str) -> float:
        """Return 1 if the centre of the answered box is in the true one."""
        box = self.answered_box(answer)
        return 0.0 if box is None else float(contains(self.box, centre(box)))

    def open_images(self) -> list[Image.Image]:
        (image,) = super().open_images()
        if image.size != self.size:
            raise DataError(
                f"{self.images[0]}: {image.size} px upright, but instances.json says {self.size}, so the boxes do "
                "not fit; save the image upright without EXIF rotation, or correct width and height"
            )
        return [image]


def _sentences(path: Path) -> list[Record]:
    return [
        replace(record.with_fields(sentence=text, number=number), where=f"{record.where}, answer[{number}]")
        for record in table_records(path)
        for number, text in enumerate(record.texts("answer"))
    ]


@dataclass(frozen=True)
class RefCoco(FileTask[RefCocoQuestion]):
    """Referring expression comprehension. split_by: the NAME of refs(NAME); None takes the one present."""

    metric: ClassVar[str] = "Acc@0.5"
    forms: ClassVar[tuple[Form, ...]] = tuple(form._replace(read=_sentences) for form in hub())

    split_by: str | None

    def files(self, folder: Path) -> Sequence[Path]:
        path = self._refs(folder)
        return super().files(folder) if path is None else [path]

    def load(self, folder: Path, split: str | None = None, style: Style = LLAVA) -> Sequence[RefCocoQuestion]:
        """Return one question per sentence of the refs in `split`; None means all but `train`.

        `folder` holds `instances.json`, `refs(NAME).p` or `refs(NAME).json`, and the images in `images/`; or the
        Hub's Parquet files.
        """
        path, name = self._refs(folder), self.split_by or "NAME"
        if path is None and not super().files(folder):
            raise DataError(f"{folder}: no refs({name}).p or refs({name}).json, nor the Hub's Parquet files")
        if path is None:
            return super().load(folder, split, style)
        refs = read_json(path) if path.suffix == ".json" else _read_pickle(path)
        if not isinstance(refs, list):
            raise DataError(f"{path}: expected a list of refs, found {type(refs).__name__}")
        known = {fields.text(ref, "split", _where(path, number, ref)) for number, ref in enumerate(refs)}
        splits = choose_splits(split, known, str(path))
        instances = Instances(folder)
        questions = [
            question
            for number, ref in enumerate(refs)
            if ref["split"] in splits
            for question in self._of_ref(ref, instances, style, _where(path, number, ref))
        ]
        return check_questions(questions, str(path))

    def questions(self, records: Sequence[Record], folder: Path, style: Style) -> Sequence[RefCocoQuestion]:
        """Return one question per record of the Hub's tables, and warn of exact repetitions, which are left out.

        DataError, naming both, for records of one ID and split that differ.
        """
        firsts: dict[tuple[str, str], tuple[RefCocoQuestion, str]] = {}
        for record, question in zip(records, super().questions(records, folder, style), strict=True):
            first, where = firsts.setdefault((question.split, question.id), (question, record.where))
            if first is not question and not _same(first, question):
                raise DataError(
                    f"{record.where}: question_id {record['question_id']} is also that of {where}, with another "
                    "description, box or image. Give one of them another question_id, or leave it out"
                )
        if len(firsts) < len(records):
            warnings.warn(
                f"{folder}: {len(records) - len(firsts)} of {len(records)} descriptions are repeated within their "
                f"split of {self.title}, and are asked once",
                stacklevel=2,
            )
        return [question for question, _ in firsts.values()]

    def question(self, record: Record, folder: Path, style: Style) -> RefCocoQuestion:
        image, box = record.image(), from_corner(record["bbox"], record.where)
        name, size = f"{record.identifier('question_id')}-{record['number']}", size_of(image)
        check_inside(box, size, record.where)
        return self._question(name, record["sentence"], image, box, size, record.split, style)

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        """Return Acc@0.5, the mean IoU, and the share of answered boxes with their centre in the true one."""
        boxes = [(question, answer) for question, answer in answered if isinstance(question, RefCocoQuestion)]
        return super().metrics(answered) | {
            "mIoU": Metric.of(Ratio.mean([question.iou(answer) for question, answer in boxes])),
            "centre accuracy": Metric.of(Ratio.mean([question.hits_centre(answer) for question, answer in boxes])),
        }

    def _refs(self, folder: Path) -> Path | None:
        patterns = [f"refs({self.split_by or '*'}).{ending}" for ending in ("json", "p")]
        if self.split_by is not None:
            return only_file(folder, *patterns)
        return only_file(folder, *patterns, instead="Name the set, such as --tasks refcoco, or keep one of them there.")

    def _of_ref(self, ref: dict[str, Any], instances: Instances, style: Style, where: str) -> Iterator[RefCocoQuestion]:
        image, size = instances.image(fields.identifier(ref, "image_id", where), where)
        box = instances.box(fields.identifier(ref, "ann_id", where), where)
        check_inside(box, size, f"{where}, ann_id {ref['ann_id']}, in {instances.path}")
        for sentence in fields.items(ref, "sentences", where):
            name, expression = fields.identifier(sentence, "sent_id", where), fields.text(sentence, "sent", where)
            yield self._question(str(name), expression, image, box, size, ref["split"], style)

    def _question(
        self, name: str, expression: str, image: StoredImage, box: Box, size: Size, split: str, style: Style
    ) -> RefCocoQuestion:
        return RefCocoQuestion(
            task=self.name,
            id=f"{self.name}-{name}",
            images=(image,),
            text=style.boxes.question.format(expression),
            split=split,
            max_new_tokens=style.boxes.max_new_tokens,
            expression=expression,
            box=box,
            size=size,
            style=style,
        )


def _same(one: RefCocoQuestion, other: RefCocoQuestion) -> bool:
    return (one.expression, one.box) == (other.expression, other.box) and identities(one) == identities(other)


def _where(path: Path, number: int, ref: Any) -> str:
    name = f", ref_id {ref['ref_id']}" if isinstance(ref, dict) and "ref_id" in ref else ""
    return f"{path}, record {number}{name}"


class _PlainUnpickler(pickle.Unpickler):
    """Loads lists, dicts, strings and numbers only, because a pickle that names anything else could run code."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}; a refs file holds plain data only")


def _read_pickle(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    except OSError:
        raise
    except Exception as error:  # a broken pickle raises any type
        raise DataError(f"{path}: not a refs pickle: {error or 'the file ends too early'}") from error

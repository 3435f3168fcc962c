"""Your own questions: `questions.jsonl`, one object per line, or a table `questions.parquet` with the same columns.

    {"image": "photos/1.jpg", "question": "What is in the cup?", "answer": "tea"}
    {"image": "photos/1.jpg", "question": "the cup on the left", "box": [120, 40, 380, 260]}

`image` is a path in the folder, or a list of them; in a table, also embedded images, as `datasets` writes them.
`answer` is a string or a list of accepted ones. A question with a `box`, in pixels of the upright image from corner to
corner, is a description that the model answers with a box. `kind`, `split` and `id` may be added.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tokenprune.errors import DataError
from tokenprune.evals.boxes import Box
from tokenprune.evals.models.prompt_styles import LLAVA, Style
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.coco import check_pixels
from tokenprune.evals.reading.hub import table_records
from tokenprune.evals.reading.images import StoredImage, size_of
from tokenprune.evals.reading.records import Record, line_records, only_file
from tokenprune.evals.reading.videos import is_video
from tokenprune.evals.tasks.base.metric import Metric, Ratio
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.short_answers import ShortAnswer, exact
from tokenprune.evals.tasks.base.task import Answered, FileTask, Form, points
from tokenprune.evals.tasks.refcoco import RefCocoQuestion

NEEDED = "image", "question"
KEYS = (*NEEDED, "answer", "box", "kind", "split", "id")
#: Prefixes of addresses, which are not files.
ADDRESSES = ("http://", "https://", "data:")
#: What to do about keys that a question does not have.
INSTEAD = {
    "video": ". Questions about videos are the task videoqa's: write SPLIT_q.json and SPLIT_a.json as ActivityNet-QA "
    "does",
    "__index_level_0__": ". Write the table without its index: to_parquet(..., index=False)",
}
EXAMPLE = '{"image": "1.jpg", "question": "...", "answer": "..."}'


def _lines(path: Path) -> list[Record]:
    return _numbered(line_records(path, f"; write one object per line, like {EXAMPLE}"), path)


def _rows(path: Path) -> list[Record]:
    return _numbered(table_records(path), path)


def _numbered(records: Sequence[Record], path: Path) -> list[Record]:
    """Give records an ID and the split that they name. An empty table cell counts as a missing field."""
    if not records:
        raise DataError(f"{path}: no questions; write them like {EXAMPLE}")
    named = []
    places: dict[tuple[str, str], str] = {}
    for number, record in enumerate(records, start=1):
        for key in record.content:
            if key not in KEYS:
                instead = INSTEAD.get(key, "")
                raise DataError(f"{record.where}: unknown key {key!r}; known are {', '.join(KEYS)}{instead}")
        for key in NEEDED:
            if record.content.get(key) is None:
                raise DataError(f"{record.where}: no {key!r}; write questions like {EXAMPLE}")
        content = {"id": number} | {key: value for key, value in record.content.items() if value is not None}
        named.append(Record(record.where, content, record.text_or_empty("split")))
        called = str(named[-1].identifier("id"))
        first = places.setdefault((named[-1].split, called), record.where)
        if first != record.where:
            raise DataError(
                f"{record.where}: the id {called} appears twice, first in {first}; give each question another. One "
                "without an id has its number in the file"
            )
    return named


@dataclass(frozen=True)
class Own(FileTask[Question]):
    """Accuracy: the share of answers that equal a right one except for case and a final period, and of boxes whose IoU
    with the right one is at least 0.5.

    labels: False for questions whose right answers may be missing.
    """

    metric: ClassVar[str] = "accuracy"
    forms: ClassVar[tuple[Form, ...]] = (Form(("questions.jsonl",), _lines), Form(("questions.parquet",), _rows))

    labels: bool = True

    def unlabelled(self) -> "Own":
        return replace(self, labels=False)

    def load(self, folder: Path, split: str | None = None, style: Style = LLAVA) -> Sequence[Question]:
        only_file(folder, *(pattern for form in self.forms for pattern in form.patterns))
        return super().load(folder, split, style)

    def question(self, record: Record, folder: Path, style: Style) -> Question:
        about: dict[str, Any] = {
            "task": self.name,
            "id": f"{self.name}-{record.identifier('id')}",
            "images": _images(record, folder),
            "split": record.split,
            "category": record.text_or_empty("kind"),
        }
        question = _asked(record)
        if "box" in record:
            return _grounding(record, question, style, about)
        answers = _texts(record, "answer") if "answer" in record else ()
        if self.labels and not any(map(str.strip, answers)):
            raise DataError(
                f"{record.where}: no answer. Add one, or write --no-labels with `tokenprune tune` or `adapt`, which "
                "then take the unpruned model's own answers"
            )
        # A token is at least one byte of text, so a right answer is never cut off.
        longest = max((len(answer.encode()) for answer in answers), default=0)
        most = max(Question.max_new_tokens, longest)
        return ShortAnswer(
            **about, text=style.short_answer(question), answers=answers, worth=exact, max_new_tokens=most
        )

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        """Return the accuracy, and that of each `kind`."""
        kinds = [question.category or "other" for question, _ in answered]
        each = Ratio.mean(points(answered)).of_each(kinds) if any(question.category for question, _ in answered) else {}
        return super().metrics(answered) | {f"{kind} accuracy": Metric.of(ratio) for kind, ratio in each.items()}


def _asked(record: Record) -> str:
    question = record.text("question")
    if not question.strip():
        raise DataError(f"{record.where}: an empty question; write one, or leave the line out")
    if "<image>" in question:  # as LLaVA's own files have it; a model with another placeholder would read it as text
        raise DataError(f"{record.where}, 'question': holds <image>; leave it out, images come first by themselves")
    return question


def _grounding(record: Record, description: str, style: Style, about: dict[str, Any]) -> RefCocoQuestion:
    where, images = f"{record.where}, 'box'", about["images"]
    if "answer" in record:
        raise DataError(f"{record.where}: has an 'answer' and a 'box'; keep one of them")
    if len(images) > 1:
        raise DataError(
            f"{where}: a box belongs to one image, and {len(images)} are named; write one question for each"
        )
    box, size = _box(record["box"], where), size_of(images[0])
    check_pixels(box, size, where)
    return RefCocoQuestion(
        **about,
        text=style.boxes.question.format(description),
        max_new_tokens=style.boxes.max_new_tokens,
        expression=description,
        box=box,
        size=size,
        style=style,
    )


def _box(corners: Any, where: str) -> Box:
    if not isinstance(corners, list) or len(corners) != 4:
        what = f"{len(corners)} numbers" if isinstance(corners, list) else fields.describe_value(corners)
        raise DataError(f"{where}: a box of {what}; expected left, top, right, bottom in pixels")
    left, top, right, bottom = (fields.as_number(corner, where) for corner in corners)
    if not (left < right and top < bottom):
        raise DataError(
            f"{where}: the box {corners} has no area; write left, top, right, bottom, which are not x, y, width, height"
        )
    return left, top, right, bottom


def _images(record: Record, folder: Path) -> tuple[StoredImage, ...]:
    value = record["image"]
    if isinstance(value, StoredImage) or (isinstance(value, tuple) and value):
        return record.images()
    if isinstance(value, bytes):
        raise DataError(
            f"{record.where}, 'image': bytes, which may be anything. Before saving the table, name them images: "
            'dataset.cast_column("image", datasets.Image())'
        )
    paths = _texts(record, "image")
    if not paths:
        raise DataError(f"{record.where}, 'image': names no image")
    for path in paths:
        if path.startswith(ADDRESSES):
            raise DataError(
                f"{record.where}, 'image': {path[:40]!r} is an address; write the path of a downloaded file"
            )
        if is_video(Path(path)):
            raise DataError(f"{record.where}, 'image': {path!r} is a video{INSTEAD['video']}")
    return tuple(record.find_image(folder, path) for path in paths)


def _texts(record: Record, key: str) -> tuple[str, ...]:
    value, where = record[key], f"{record.where}, {key!r}"
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        raise DataError(f"{where}: expected a text or a list of texts, found {fields.describe_value(value)}")
    return tuple(fields.as_text(value, where) for value in values)

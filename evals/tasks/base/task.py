"""A task: a published set of questions, its prompts, and its metrics."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, NamedTuple, TypeVar

from tokenprune.errors import DataError
from tokenprune.evals.models.prompt_styles import LLAVA, Style
from tokenprune.evals.reading.fields import check_distinct
from tokenprune.evals.reading.hub import check_complete, table_records
from tokenprune.evals.reading.records import Record
from tokenprune.evals.tasks.base.metric import Metric, Ratio
from tokenprune.evals.tasks.base.published import Published, published_sets
from tokenprune.evals.tasks.base.question import Question

Answered = Sequence[tuple[Question, str]]
S = TypeVar("S", bound=Question)


@dataclass(frozen=True)
class Task(ABC):
    """One of `tokenprune.evals.tasks.TASKS`.

    name: its name on the command line. title: its name in tables.
    metric: the name of the main metric. of_groups: whether it is only defined on groups of questions.
    sums: the metrics that are not fractions of 1.
    """

    metric: ClassVar[str]
    of_groups: ClassVar[bool] = False
    sums: ClassVar[frozenset[str]] = frozenset()

    name: str
    title: str

    @property
    def published(self) -> Published | None:
        """Where the set is published; None for a user's own questions, and for any set in a file format."""
        return published_sets().get(self.name)

    @abstractmethod
    def files(self, folder: Path) -> Sequence[Path]:
        """Return the files in `folder` with this set's questions. DataError if there is no such folder."""

    def is_in(self, folder: Path) -> bool:
        return bool(self.files(folder))

    @abstractmethod
    def load(self, folder: Path, split: str | None = None, style: Style = LLAVA) -> Sequence[Question]:
        """Return the questions in `split` (None: all but `train`), with prompts in that `style`.

        DataError for anything wrong with the files; it names the file and the line or record.
        """

    def unlabelled(self) -> "Task":
        """Return the task for a use without right answers, which a set may then lack if it allows that."""
        return self

    def metrics(self, answered: Answered) -> dict[str, Metric]:
        """Return the set's published metrics of the answers, the main one first.

        An answer that cannot be read counts as 0. `answered` may be any part of the set with complete groups, such as
        one split.
        """
        return {self.metric: Metric.of(Ratio.mean(points(answered)))}


class NoSplitError(DataError):
    """A set does not have the wanted split."""


def choose_splits(wanted: str | None, splits: set[str], where: str) -> set[str]:
    """Return the splits to ask, out of those `found` in a set; "" stands for questions without a split. `train` and
    other training splits, such as GQA's `train_balanced`, are asked only if wanted.

    NoSplitError, naming the file `where`, if the wanted split is not there.
    """
    if wanted is None:
        train = {split for split in splits if split == "train" or split.startswith("train_")}
        if splits and splits == train:
            named = sorted(train)[0]
            raise DataError(
                f"{where}: all questions are of split {named!r}, which is left out; write --split {named} to ask them"
            )
        return splits - train
    if splits == {""}:
        raise NoSplitError(f"{where}: no split {wanted!r}; it has none. Leave --split out")
    if wanted not in splits:
        raise NoSplitError(f"{where}: no split {wanted!r}; it has {', '.join(sorted(splits - {''}))}")
    return {wanted}


def check_questions(questions: Sequence[S], where: str) -> Sequence[S]:
    """Return the questions. DataError, naming the file `where`, if there are none or two have the same ID."""
    if not questions:
        raise DataError(f"{where}: no questions")
    splits: dict[str, str] = {}
    for question in questions:
        first = splits.setdefault(question.id, question.split)
        if first != question.split:
            raise DataError(
                f"{where}: a question {question.id} is {_in_split(first)}, and another {_in_split(question.split)}. "
                f"Ask one split, with --split {first or question.split}, or give them different IDs"
            )
    check_distinct([question.id for question in questions], where)
    return questions


def _in_split(name: str) -> str:
    return f"in split {name!r}" if name else "in no split"


def points(answered: Answered) -> list[float]:
    """Return the score of each answer."""
    return [question.score(answer) or 0.0 for question, answer in answered]


def of_each_category(answered: Answered) -> dict[str, Ratio]:
    """Return the mean score of each category, in the set's order."""
    return Ratio.mean(points(answered)).of_each([question.category for question, _ in answered])


def mean_of_categories(answered: Answered) -> Metric:
    of_each = of_each_category(answered)
    return Metric.of(*of_each.values(), weight=1 / len(of_each))


class Form(NamedTuple):
    """A form in which a set is distributed: patterns of its files in the folder, and the function that reads one."""

    patterns: tuple[str, ...]
    read: Callable[[Path], list[Record]] = table_records


def hub(*parts: str) -> tuple[Form, ...]:
    """Return the forms of a set on the Hub: its repository, its folder `data` or any of `parts`, or a saved copy."""
    places = ("", "data/", *(f"{part}/" for part in parts))
    patterns = (*(f"{place}*-of-*.parquet" for place in places), "*.parquet", "data-*.arrow", "*/data-*.arrow")
    return tuple(Form((pattern,)) for pattern in patterns)


@dataclass(frozen=True)
class FileTask(Task, Generic[S]):
    """A task whose files are lists of records, each of which is a question.

    forms: the forms in which the set is distributed; the first whose files are in the folder is read.
    """

    forms: ClassVar[tuple[Form, ...]]

    def files(self, folder: Path) -> Sequence[Path]:
        return self._form(folder)[1]

    def load(self, folder: Path, split: str | None = None, style: Style = LLAVA) -> Sequence[S]:
        read, files = self._form(folder)
        if not files:
            patterns = (pattern for form in self.forms for pattern in form.patterns)
            raise DataError(f"{folder}: no questions of {self.title}; needs one of {', '.join(patterns)}")
        of_file = {file: read(file) for file in files}
        for file, records in of_file.items():
            if not records:
                raise DataError(f"{file}: no questions; remove the file, or download it again")
        records = [record for records in of_file.values() for record in records]
        splits = choose_splits(split, {record.split for record in records}, " and ".join(map(str, files)))
        check_complete(file for file, own in of_file.items() if any(record.split in splits for record in own))
        questions = self.questions([record for record in records if record.split in splits], folder, style)
        return check_questions(questions, " and ".join(map(str, files)))

    def questions(self, records: Sequence[Record], folder: Path, style: Style) -> Sequence[S]:
        """Return the questions, by default one per record."""
        return [self.question(record, folder, style) for record in records]

    @abstractmethod
    def question(self, record: Record, folder: Path, style: Style) -> S:
        """Return the question in a record of any form."""

    def _form(self, folder: Path) -> tuple[Callable[[Path], list[Record]], list[Path]]:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of images and questions")
        for form in self.forms:
            if files := [path for pattern in form.patterns for path in sorted(folder.glob(pattern))]:
                return form.read, files
        return table_records, []

"""The questions of a folder, and a few of them that stand for all."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from tokenprune.errors import DataError, SettingError, unknown
from tokenprune.evals.models.prompt_styles import LLAVA, Style
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question

T = TypeVar("T")

#: The tasks that are recognised by their files alone.
ANY_SET = ("rec", "vqa", "videoqa")


def load_questions(
    folder: Path, tasks: Sequence[str] | None = None, *, split: str | None = None, style: Style = LLAVA
) -> list[Question]:
    """Return the questions of these tasks, one after the other; None means all tasks whose files are found.

    The files of a task are in `folder` itself, or in a folder inside it named after the task. split: the sets' own
    word; None means all but `train`. style: the way the model is asked.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images and questions")
    for name in tasks or ():
        if name not in TASKS:
            raise SettingError(unknown("task", name, TASKS))
    found = [name for name in TASKS if (folder / name).is_dir()]
    questions: list[Question] = []
    for name in found + [name for name in ANY_SET if TASKS[name].is_in(folder)] if tasks is None else tasks:
        questions += TASKS[name].load(folder / name if name in found else folder, split, style)
    if not questions:
        raise DataError(
            f"{folder}: no questions; needs refs(NAME).p or .json, or *questions.json, or a folder named after a task: "
            f"{', '.join(TASKS)}"
        )
    return questions


def limit_questions(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """Return `limit` questions of each task, spread evenly, or `limit` groups of questions that count together."""
    tasks: dict[str, dict[str, list[Question]]] = {}
    for question in questions:
        tasks.setdefault(question.task, {}).setdefault(question.group or question.id, []).append(question)
    return [
        question for groups in tasks.values() for group in evenly(list(groups.values()), limit) for question in group
    ]


def evenly(questions: Sequence[T], limit: int | None) -> list[T]:
    """Return `limit` items at equal distances, so that a few represent the whole file."""
    if limit is None or limit >= len(questions):
        return list(questions)
    return [questions[index * len(questions) // limit] for index in range(limit)]

"""The questions of a folder, and representative samples of them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tokenprune.errors import DataError
from tokenprune.evals.boxes import Size
from tokenprune.evals.models.bundled import BUNDLED
from tokenprune.evals.models.image_view import ImageView, full_view
from tokenprune.evals.models.prompt_styles import LLAVA, Style, unknown_boxes
from tokenprune.evals.reading.images import size_of
from tokenprune.evals.tasks import TASKS, find_task
from tokenprune.evals.tasks.base.box import BoxQuestion
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.video import VideoQuestion
from tokenprune.evals.tasks.own import EXAMPLE
from tokenprune.evals.tasks.refcoco import RefCocoQuestion

T = TypeVar("T")

#: The tasks that are recognised by their files alone.
ANY_SET = ("rec", "vqa", "videoqa")
OWN = "own"


def load_questions(
    folder: Path,
    tasks: Sequence[str] | None = None,
    *,
    split: str | None = None,
    style: Style = LLAVA,
    labels: bool = True,
) -> list[Question]:
    """Return the questions of these tasks, in sequence; None means all tasks whose files are found or, in a folder with
    a user's own `questions.jsonl` or `questions.parquet`, those questions alone.

    The files of a task are in `folder` itself, or in a folder inside it named after the task. split: the sets' own
    name; None means all but `train`. style: how the model is asked. labels: False if right answers are not used; the
    user's own questions may then lack them. SettingError for an unknown task.
    """
    if folder.is_file():
        raise DataError(f"{folder}: a file; name the folder that it is in: --data {folder.parent}")
    if not folder.is_dir():
        bundled = "; only a clone has the bundled sets: write --data DIR" if folder.is_relative_to(BUNDLED) else ""
        raise DataError(f"{folder}: no such folder of images and questions{bundled}")
    for name in tasks or ():
        find_task(name)
    if tasks is None:
        alone = [OWN] if TASKS[OWN].is_in(folder) else []
        named = [name for name in TASKS if (folder / name).is_dir()]
        tasks = alone or named + [name for name in ANY_SET if TASKS[name].is_in(folder)]
    questions: list[Question] = []
    for name in dict.fromkeys(tasks):
        task = TASKS[name] if labels else TASKS[name].unlabelled()
        questions += task.load(place_of(name, folder), split, style)
    if not questions:
        raise DataError(
            f"{folder}: no questions; it needs your own in questions.jsonl, with lines {EXAMPLE}, or a published set: "
            f"refs(NAME).p or .json, *questions.json, or a folder named after a task: {', '.join(TASKS)}. If it holds "
            "the files of a set, name the set: --tasks pope"
        )
    return questions


def place_of(task: str, folder: Path) -> Path:
    """Return where the files of a task are: in a folder named after it, if there is one."""
    return folder / task if (folder / task).is_dir() else folder


def notices(
    questions: Sequence[Question], folder: Path, tasks: Sequence[str] | None, *, has_tasks: bool = True
) -> Iterator[str]:
    """Yield what to tell the user about loaded questions: which tasks' folders were not read because the user's own
    questions are beside them, and that the model's format of boxes is unknown.

    has_tasks: whether the command has the option --tasks.
    """
    others = " ".join(name for name in TASKS if (folder / name).is_dir())
    if others and tasks is None and TASKS[OWN].is_in(folder):
        more = f"To ask all, add --tasks {OWN} {others}" if has_tasks else "To ask those, move yours to another folder"
        yield f"{folder}: your own questions are asked alone, without the folders {others}. {more}"
    assumed = [
        question.style.assumed_for
        for question in questions
        if isinstance(question, BoxQuestion) and question.style.assumed_for
    ]
    if assumed:
        yield unknown_boxes(
            assumed[0],
            f"{len(assumed)} questions ask for one with LLaVA's prompt. Where answers are scored, those in another "
            "format count as wrong (column unparsable)",
        )


def cut_off(questions: Sequence[Question], view: Callable[[Size], ImageView]) -> str | None:
    """Return what to tell the user if the model does not see all of every image; None if it does, or if these are
    videos. view: the part that it sees."""
    if not any(view(size).cuts(full_view(size).window) for size in ((2000, 1000), (1000, 2000))):
        return None
    sizes = {
        image: size_of(image)
        for question in questions
        if not isinstance(question, VideoQuestion)
        for image in question.images
    }
    n_images = sum(view(size).cuts(full_view(size).window) for size in sizes.values())
    if not n_images:
        return None
    boxes = [(question.box, question.size) for question in questions if isinstance(question, RefCocoQuestion)]
    n_boxes = sum(view(size).cuts(box) for box, size in boxes)
    parts = f"{n_images} of {len(sizes)} images ({n_images / len(sizes):.0%})"
    parts += f" and of {n_boxes} of {len(boxes)} boxes ({n_boxes / len(boxes):.0%})" if boxes else ""
    return (
        f"Warning: the model's processor crops images to the middle, so the model does not see all of {parts}. To pad "
        "them to squares instead, as LLaVA-1.5 was trained, add --pad"
    )


def limit_questions(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """Return `limit` evenly spaced questions of each task, or `limit` groups of questions that count together."""
    tasks: dict[str, dict[str, list[Question]]] = {}
    for question in questions:
        tasks.setdefault(question.task, {}).setdefault(question.group or question.id, []).append(question)
    return [
        question for groups in tasks.values() for group in evenly(list(groups.values()), limit) for question in group
    ]


def evenly(questions: Sequence[T], limit: int | None) -> list[T]:
    """Return `limit` evenly spaced items, so that a few represent the whole file."""
    if limit is None or limit >= len(questions):
        return list(questions)
    return [questions[index * len(questions) // limit] for index in range(limit)]

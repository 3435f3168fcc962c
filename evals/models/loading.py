"""Load a model with its processor, and the questions of a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from tokenprune.errors import DataError, SettingError, unknown
from tokenprune.evals.models.bundled import MODEL
from tokenprune.evals.models.prompt_styles import LLAVA, Style
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks._base.question import Question

T = TypeVar("T")

#: The tasks that are recognised by their files alone.
ANY_SET = ("rec", "vqa")


def load_model(
    name: str, dtype: str = "float32", device: str | None = None, device_map: str | None = None
) -> tuple[Any, Any]:
    """Return (model, processor) from a folder or a Hugging Face name.

    device: where the model goes; by default the GPU if there is one. dtype: "auto" is the dtype of the weights, but
    float32 for float16 weights on a CPU, where float16 is several times slower. device_map: from_pretrained's, instead
    of `device`; "auto" spreads a model over all devices. DataError if there is no such model.
    """
    if Path(name) == MODEL and not (MODEL / "model.safetensors").is_file():
        raise DataError(f"{MODEL}: the bundled model is missing, wheels leave it out; name a model with --model")
    torch_dtype = dtype if dtype == "auto" else getattr(torch, dtype)
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=torch_dtype, device_map=device_map)
    except OSError as error:
        message = f"{name}: not a model ({str(error).splitlines()[0]}); give a folder or a Hugging Face name"
        raise DataError(message) from error
    if device_map is None:
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if dtype == "auto" and model.device.type == "cpu" and model.dtype == torch.float16:
            model.float()
    return model.eval(), AutoProcessor.from_pretrained(name)


def public_name(model: str) -> str:
    """Return the model's name for results: of a folder, the path relative to here or else its last part."""
    path = Path(model).resolve()
    if not path.is_dir():
        return model
    here = Path.cwd().resolve()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name


def load_questions(folder: Path, *, split: str | None = None, style: Style = LLAVA) -> list[Question]:
    """Return the questions of every set in `folder`: in RefCOCO's format, VQAv2's or both.

    split: of the refs and, for VQAv2, of the images in `instances.json`; None means all but `train`. style: the way
    the model is asked.
    """
    return load_tasks(folder, None, split=split, style=style)


def load_tasks(
    folder: Path, names: Sequence[str] | None, *, split: str | None = None, style: Style = LLAVA
) -> list[Question]:
    """Return the questions of the tasks `names`, one after the other; None means all tasks whose files are found.

    The files of a task are in `folder` itself, or in a folder inside it named after the task. `split` is the sets' own
    word; None means all but `train`.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images and questions")
    for name in names or ():
        if name not in TASKS:
            raise SettingError(unknown("task", name, TASKS))
    found = [name for name in TASKS if (folder / name).is_dir()]
    questions: list[Question] = []
    for name in found + [name for name in ANY_SET if TASKS[name].is_in(folder)] if names is None else names:
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

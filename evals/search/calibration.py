"""Calibration data: drawn at random, asked one by one, named in the settings file, and excluded from evaluations."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from tokenprune.adapters.devices import input_device
from tokenprune.errors import DataError, SettingError
from tokenprune.evals.reading.images import StoredImage, content_digest
from tokenprune.evals.tasks.base.question import Question
from tokenprune.prompts import encode_chat
from tokenprune.strategies.settings import SettingsFile


def sample_questions(questions: Sequence[Question], n_drawn: int, seed: int) -> list[Question]:
    """Draw `n_drawn` questions at random and return them in their own order. SettingError if there are fewer."""
    if n_drawn > len(questions):
        raise SettingError(
            f"{n_drawn} questions requested, but there are only {len(questions)}; write --questions {len(questions)}"
        )
    drawn = np.random.default_rng(seed).choice(len(questions), n_drawn, replace=False)
    return [questions[index] for index in sorted(drawn)]


def encode_each(model: Any, processor: Any, questions: Sequence[Question]) -> Iterator[tuple[Question, Any]]:
    """Yield each question with its encoded prompt on the model's device."""
    for question in questions:
        inputs = encode_chat(processor, [question.open_images()], [question.text])
        yield question, inputs.to(input_device(model), model.dtype)


def check_not_empty(questions: Sequence[Question]) -> None:
    """Raise SettingError if there are no questions."""
    if not questions:
        raise SettingError("no questions, so there is nothing to measure on. Ask for at least one.")


def image_digests(questions: Sequence[Question]) -> dict[str, str]:
    """Return a digest of each image's bytes, by its file name (for human readers).

    If several images share a name, for example in different folders, the digest is appended.
    """
    found: dict[str, str] = {}
    for image in dict.fromkeys(image for question in questions for image in question.images):
        digest = _digest(image)
        same = found.setdefault(image.name, digest) == digest
        found |= {} if same else {f"{image.name} {digest}": digest}
    return found


def calibrated_on(file: SettingsFile) -> frozenset[str]:
    """Return the digests of the images that a settings file was calibrated on; none if no search wrote it.

    Raises SettingError if a search wrote it without naming them.
    """
    if not file.search:
        return frozenset()
    data = file.search.get("data")
    images = data.get("images") if isinstance(data, dict) else None
    if not isinstance(images, dict) or not images or not all(isinstance(digest, str) for digest in images.values()):
        raise SettingError(
            f'{file.path}, "search", "data": no "images", so it is unknown which questions it must not be evaluated '
            f'on. Rename the key "pictures" of version 0.1, or search again: tokenprune optimize --output {file.path}'
        )
    return frozenset(images.values())


def without_images(questions: Sequence[Question], images: Collection[str], where: str) -> list[Question]:
    """Return the questions about none of the `images`, given by digest, whatever their files are called.

    DataError, naming `where`, if none is left.
    """
    if not images:
        return list(questions)
    known = {
        image: _digest(image) in images for image in {image for question in questions for image in question.images}
    }
    left = [question for question in questions if not any(known[image] for image in question.images)]
    if questions and not left:
        raise DataError(f"{where}: every question is about an image of the calibration data; evaluate on others")
    return left


def _digest(image: StoredImage) -> str:
    return content_digest(image)[:16]

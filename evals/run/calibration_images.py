"""The images that settings were calibrated on: named in the settings file, and left out of evaluations."""

from collections.abc import Collection, Sequence

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.reading.images import StoredImage, content_digest
from tokenprune.evals.tasks.base.question import Question
from tokenprune.strategies.settings import SettingsFile


def image_digests(questions: Sequence[Question]) -> dict[str, str]:
    """Return a digest of each image's bytes, by its file name (for human readers).

    If several images share a name, for example in different folders, the digest is appended.
    """
    digests: dict[str, str] = {}
    for image in dict.fromkeys(image for question in questions for image in question.images):
        digest = _digest(image)
        same = digests.setdefault(image.name, digest) == digest
        digests |= {} if same else {f"{image.name} {digest}": digest}
    return digests


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
            f'on. Rename the key "pictures" of version 0.2, or search again: tokenprune optimize --output {file.path}'
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
    rest = [question for question in questions if not any(known[image] for image in question.images)]
    if questions and not rest:
        raise DataError(f"{where}: every question is about an image of the calibration data; evaluate on others")
    return rest


def _digest(image: StoredImage) -> str:
    return content_digest(image)[:16]

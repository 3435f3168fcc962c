"""Calibration data: drawn at random, named in the settings file, and excluded from evaluations."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.reading.images import StoredImage
from tokenprune.evals.tasks.base.question import Question
from tokenprune.strategies.settings import SettingsFile


def calibration(samples: Sequence[Question], n_samples: int, seed: int) -> list[Question]:
    """Return `n_samples` drawn at random, in their own order. SettingError where there are fewer."""
    if n_samples > len(samples):
        raise SettingError(f"{n_samples} samples requested, but there are only {len(samples)}; request fewer")
    drawn = np.random.default_rng(seed).choice(len(samples), n_samples, replace=False)
    return [samples[index] for index in sorted(drawn)]


def image_digests(samples: Sequence[Question]) -> dict[str, str]:
    """Return a digest of each image's bytes, by its file name (for human readers)."""
    return {image.name: _digest(image) for sample in samples for image in sample.images}


def calibrated_on(file: SettingsFile) -> frozenset[str]:
    """Return the digests of the images that a settings file was calibrated on; none if no search wrote it.

    Raises SettingError if a search wrote it without naming them.
    """
    if not file.search:
        return frozenset()
    images = file.search.get("data", {}).get("pictures")
    if not isinstance(images, dict) or not images:
        raise SettingError(
            f'{file.path}, "search", "data": no "pictures", so it is unknown which questions it must not be evaluated '
            f"on. Search again: tokenprune optimize --output {file.path}"
        )
    return frozenset(images.values())


def apart(samples: Sequence[Question], images: Collection[str], where: str) -> list[Question]:
    """Return the samples about none of the `images`, given by their digests, whatever their files are called.

    DataError, naming `where`, if none is left.
    """
    if not images:
        return list(samples)
    known = {image: _digest(image) in images for image in {image for sample in samples for image in sample.images}}
    left = [sample for sample in samples if not any(known[image] for image in sample.images)]
    if samples and not left:
        raise DataError(f"{where}: every question is about an image of the calibration data; evaluate on other ones")
    return left


def _digest(image: StoredImage) -> str:
    return hashlib.sha256(image.read_bytes()).hexdigest()[:16]

"""What a policy sees at one moment of a recording."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from tokenprune.errors import DataError
from tokenprune.evals.reading.fields import as_number, describe_value
from tokenprune.evals.reading.images import StoredImage, open_image
from tokenprune.evals.reading.videos import VideoFrame


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one moment.

    where: its file and place, for errors. images: of every camera, in the same order in all observations. state: the
    robot's, None if none is recorded. episode: the recording it is from; moments of one are alike.
    """

    where: str
    images: tuple[StoredImage | VideoFrame, ...]
    state: tuple[float, ...] | None
    task: str
    episode: int

    def open_images(self) -> list[Image.Image]:
        return [image.open() if isinstance(image, VideoFrame) else open_image(image) for image in self.images]


def numbers(values: Any, where: str) -> tuple[float, ...]:
    """Return a list of numbers that is not empty."""
    if not isinstance(values, list) or not values:
        raise DataError(f"{where}: expected a list of numbers, found {describe_value(values)}")
    return tuple(as_number(value, f"{where}[{number}]") for number, value in enumerate(values))

"""Open an image as a model should see it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tokenprune.errors import DataError


@runtime_checkable
class StoredImage(Protocol):
    """Where an image is stored: a `Path`, or a cell of a table. `str` gives its name for errors."""

    @property
    def name(self) -> str: ...

    def read_bytes(self) -> bytes: ...


def size_of(stored: StoredImage) -> tuple[int, int]:
    """Return the width and height of the upright image, without decoding it."""
    content = stored.read_bytes()
    with _named(stored), _large(), Image.open(io.BytesIO(content)) as file:
        sideways = file.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (file.height, file.width) if sideways else file.size


def open_image(stored: StoredImage) -> Image.Image:
    """Return the image upright (EXIF rotation applied) and in RGB (grey repeated, transparency on white).

    DataError, naming the file, if it is truncated or not an image.
    """
    content = stored.read_bytes()
    with _named(stored), _large(), Image.open(io.BytesIO(content)) as file:
        image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")


@contextmanager
def _large() -> Iterator[None]:
    """Lift Pillow's size limit: remote-sensing sets have images that it takes for an attack."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _named(stored: StoredImage) -> Iterator[None]:
    try:
        yield
    except (UnidentifiedImageError, SyntaxError) as error:  # PIL raises SyntaxError for a broken PNG chunk
        raise DataError(f"{stored}: not an image that Pillow can read; replace the file") from error
    except OSError as error:
        raise DataError(f"{stored}: truncated or broken image ({error}); replace the file") from error

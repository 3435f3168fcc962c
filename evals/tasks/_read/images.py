"""Open an image as a model should see it, or say what is wrong with it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tokenprune.errors import DataError


@runtime_checkable
class StoredImage(Protocol):
    """Where an image's file is: a `Path`, or a cell of a table. `str` names it in errors."""

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
    """Return the image upright (EXIF rotation applied) and RGB (grey repeated, transparency on white).

    Raises ValueError naming the file where it is truncated or no image.
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
    """Remote-sensing sets have images that Pillow takes for an attack."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _named(stored: StoredImage) -> Iterator[None]:
    try:
        yield
    except (UnidentifiedImageError, SyntaxError) as error:  # PIL's word for a broken PNG chunk is SyntaxError
        raise DataError(f"{stored}: no image that Pillow can read; replace the file") from error
    except OSError as error:
        raise DataError(f"{stored}: truncated or broken image ({error}); replace the file") from error

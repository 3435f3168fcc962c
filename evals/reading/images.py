"""Open an image as a model should see it."""

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from tokenprune.errors import DataError
from tokenprune.evals.reading.allowed import allowed

#: EXIF orientations that swap width and height. Larger numbers are undefined.
SIDEWAYS = range(5, 9)
#: White in 16-bit grey.
MOST_GREY = 65535


@runtime_checkable
class StoredImage(Protocol):
    """Where an image is stored: a `Path`, or a cell of a table. `str` gives its name for errors."""

    @property
    def name(self) -> str: ...

    def read_bytes(self) -> bytes: ...


def content_digest(stored: StoredImage) -> str:
    """Return the SHA-256 of an image's bytes, which are the same for every copy. A file is not reread until it
    changes."""
    if not isinstance(stored, Path):
        return hashlib.sha256(stored.read_bytes()).hexdigest()
    found = stored.stat()
    return _file_digest(stored, found.st_mtime_ns, found.st_size)


@cache
def _file_digest(path: Path, written: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def size_of(stored: StoredImage) -> tuple[int, int]:
    """Return the width and height of the upright image, without decoding it."""
    content = stored.read_bytes()
    with _guarded(stored), Image.open(io.BytesIO(content)) as file:
        sideways = file.getexif().get(ExifTags.Base.Orientation, 1) in SIDEWAYS
        width, height = file.size
        if tags := getattr(file, "tag_v2", None):  # of a TIFF, whose `size` is the upright one in newer Pillow
            width, height = tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength]
        return (height, width) if sideways else (width, height)


def open_image(stored: StoredImage) -> Image.Image:
    """Return the image upright (EXIF rotation applied) and in RGB (grey repeated, transparency on white).

    DataError, naming the file, if it is truncated, not an image, larger than is allowed, or in numbers of unknown
    range.
    """
    content = stored.read_bytes()
    with _guarded(stored), Image.open(io.BytesIO(content)) as file:
        image = _in_bytes(stored, ImageOps.exif_transpose(file))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")


def _in_bytes(stored: StoredImage, image: Image.Image) -> Image.Image:
    """Convert 16-bit grey to 8 bits: Pillow would clip it at 255, turning nearly all of it white. Other images are
    returned unchanged."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    levels = image if image.mode == "F" else image.convert("I")
    lowest, highest = levels.getextrema()
    if image.mode == "F" or not 0 <= lowest <= highest <= MOST_GREY:  # pyright: ignore[reportOperatorIssue]
        raise DataError(
            f"{stored}: grey from {lowest} to {highest}, and it is unknown which of them is white; save the image with "
            f"8 or 16 bits for each pixel"
        )
    return levels.point(lambda level: level * (255 / MOST_GREY) + 0.5).convert("L")


@contextmanager
def _guarded(stored: StoredImage) -> Iterator[None]:
    """Refuse an image with more pixels than allowed before decoding it, and name the file of a broken one."""
    most, before = allowed().max_image_pixels, Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = most
    try:
        with warnings.catch_warnings():
            # Pillow warns above the limit, and raises its own error above twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        found = re.search(r"\d+", str(error))
        n_pixels = found[0] if found else 2 * most
        raise DataError(
            f"{stored}: an image of {n_pixels} pixels, and at most {most} are decoded, because a small file may claim "
            f"any size. If you trust this one, add --max-image-pixels {n_pixels}"
        ) from error
    except (UnidentifiedImageError, SyntaxError) as error:  # PIL raises SyntaxError for a broken PNG chunk
        raise DataError(f"{stored}: not an image that Pillow can read; replace the file") from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise any type for a broken file
        raise DataError(f"{stored}: truncated or broken image ({error}); replace the file") from error
    finally:
        Image.MAX_IMAGE_PIXELS = before

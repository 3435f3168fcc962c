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

import numpy as np
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
    stat = stored.stat()
    return _file_digest(stored, stat.st_mtime_ns, stat.st_size)


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
    range. Of an animation or a document, this is the first frame or page, and a warning says so once.
    """
    content = stored.read_bytes()
    with _guarded(stored), Image.open(io.BytesIO(content)) as file:
        if getattr(file, "is_animated", False) and file.format != "MPO":  # in which cameras store previews
            _warn_of_more_frames(str(stored))
        image = _in_bytes(stored, ImageOps.exif_transpose(file), _bits(file, content))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")


@cache
def _warn_of_more_frames(stored: str) -> None:
    warnings.warn(
        f"{stored}: has several frames or pages, of which only the first is read. Save the others as images of their "
        "own.",
        stacklevel=3,
    )


def _bits(file: Image.Image, content: bytes) -> int:
    """Return how many bits store a level of grey, or of a colour, in a PNG or TIFF; 8 for other formats."""
    if file.format == "PNG":
        return content[24]
    tags = getattr(file, "tag_v2", {})
    return int(np.max(tags.get(ExifTags.Base.BitsPerSample, 8)))


def _in_bytes(stored: StoredImage, image: Image.Image, bits: int) -> Image.Image:
    """Convert 16-bit grey to 8 bits, where Pillow would clip it at 255, turning nearly all of it white. Also convert a
    PNG's transparent colour, which Pillow leaves in the file's bits. Other images are returned unchanged."""
    transparent = image.info.get("transparency")
    if image.mode != "F" and not image.mode.startswith("I"):
        if bits == 16 and isinstance(transparent, tuple):  # Pillow has already dropped the lower half of the pixels'
            raise DataError(
                f"{stored}: colours of 16 bits, of which one, {transparent}, is transparent; save the image with 8 "
                f"bits, or with an alpha channel"
            )
        if bits in (2, 4) and isinstance(transparent, int) and image.mode == "L":
            image.info["transparency"] = transparent * 255 // (2**bits - 1)
        return image
    image.info.pop("transparency", None)
    levels = image if image.mode == "F" else image.convert("I")
    lowest, highest = levels.getextrema()
    known = 0 <= lowest <= highest <= MOST_GREY  # pyright: ignore[reportOperatorIssue]
    if image.mode == "F" or not known or (bits == 32 and highest <= 255):  # pyright: ignore[reportOperatorIssue]
        raise DataError(
            f"{stored}: grey from {lowest} to {highest}, and it is unknown which of them is white; save the image with "
            f"8 or 16 bits for each pixel"
        )
    grey = levels.point(lambda level: level * (255 / MOST_GREY) + 0.5).convert("L")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(np.asarray(levels) == transparent, 0, 255).astype(np.uint8)))
    return grey


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
        number = re.search(r"\d+", str(error))
        n_pixels = number[0] if number else 2 * most
        raise DataError(
            f"{stored}: an image of {n_pixels} pixels, and at most {most} are decoded, because a small file may claim "
            f"any size. If you trust this one, add --max-image-pixels {n_pixels}"
        ) from error
    except (UnidentifiedImageError, SyntaxError) as error:  # PIL raises SyntaxError for a broken PNG chunk
        raise DataError(f"{stored}: not an image that Pillow can read; save it as PNG or JPEG") from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise any type for a broken file
        raise DataError(f"{stored}: truncated or broken image ({error}); replace the file") from error
    finally:
        Image.MAX_IMAGE_PIXELS = before

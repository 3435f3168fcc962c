"""Open a picture as a model should see it, or say what is wrong with it."""

import io
from typing import Protocol, runtime_checkable

from PIL import Image, ImageOps, UnidentifiedImageError


@runtime_checkable
class Stored(Protocol):
    """Where a picture's file is: a `Path`, or a cell of a table. `str` names it in errors."""

    @property
    def name(self) -> str: ...

    def read_bytes(self) -> bytes: ...


def open_picture(stored: Stored) -> Image.Image:
    """Return the picture upright (EXIF rotation applied) and RGB (grey repeated, transparency on white).

    Raises ValueError naming the file where it is truncated or no picture.
    """
    content = stored.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return picture.convert("RGB")
    except (UnidentifiedImageError, SyntaxError) as error:  # PIL's word for a broken PNG chunk is SyntaxError
        raise ValueError(f"{stored}: no picture that Pillow can read; replace the file") from error
    except OSError as error:
        raise ValueError(f"{stored}: truncated or broken picture ({error}); replace the file") from error

"""Open a picture as a model should see it, or say what is wrong with it."""

from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError


def open_picture(path: Path) -> Image.Image:
    """Return the picture upright (EXIF rotation applied) and RGB (grey repeated, transparency on white).

    Raises ValueError naming the file where it is truncated or no picture.
    """
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return picture.convert("RGB")
    except (UnidentifiedImageError, SyntaxError) as error:  # PIL's word for a broken PNG chunk is SyntaxError
        raise ValueError(f"{path}: no picture that Pillow can read; replace the file") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: truncated or broken picture ({error}); replace the file") from error

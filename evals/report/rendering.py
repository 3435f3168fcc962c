"""Rendering of the HTML pages, and data URLs for the files they embed."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from tokenprune.evals.report import palette

_EVALS = Path(__file__).parents[1]
_FOLDERS = [_EVALS / part / "templates" for part in ("report", "explain")]


def render(template: str, **values: Any) -> str:
    """Return a self-contained page. Values are escaped; leaving one out is an error."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDERS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["palette"] = palette
    return environment.get_template(template).render(**values)


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def jpeg_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return data_url(stream.getvalue(), "image/jpeg")


def png_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return data_url(stream.getvalue(), "image/png")

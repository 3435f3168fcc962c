"""The tiles that a zoom examined, drawn on the image: `draw_look(image, look).save("look.jpg")`."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageEnhance

from tokenprune.zoom.pyramid import Box
from tokenprune.zoom.search import Look

#: One per level, the coarsest first, repeated for deeper ones.
COLORS = ("white", "yellow", "orange", "red")
ANSWERED_FROM = "cyan"


def draw_look(image: Image.Image, look: Look, width: int = 1600) -> Image.Image:
    """Draw the image, shrunk to `width` pixels, with a frame around each examined tile: white at the coarsest
    level, then yellow, orange and red. The sharper a tile's attention, relative to its level's sharpest, the thicker
    its lines; parts that no tile below the coarsest level shows are darker. Cyan frames the view answered from.
    """
    scale = width / image.width
    bright = image.resize((width, round(image.height * scale)), Image.Resampling.LANCZOS, reducing_gap=3.0)
    seen = Image.new("L", bright.size, 0)
    steps = [[(v, s) for v, s in zip(p.views, p.attention, strict=True) if v.level is not None] for p in look.steps]
    for pairs in steps[1:]:
        for view, _ in pairs:
            ImageDraw.Draw(seen).rectangle(_scaled(view.box, scale), fill=255)
    result = Image.composite(bright, ImageEnhance.Brightness(bright).enhance(0.45), seen)
    draw = ImageDraw.Draw(result)
    for number, pairs in enumerate(steps):
        sharpest = max((seen.focus for _, seen in pairs), default=1.0)
        for view, looked in sorted(pairs, key=lambda pair: pair[1].focus):
            thickness = 1 + round(3 * looked.focus / sharpest)
            draw.rectangle(_scaled(view.box, scale), outline=COLORS[number % len(COLORS)], width=thickness)
    for view in look.views:
        draw.rectangle(_scaled(view.box, scale), outline=ANSWERED_FROM, width=3)
    return result


def _scaled(box: Box, scale: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return left * scale, top * scale, right * scale - 1, bottom * scale - 1

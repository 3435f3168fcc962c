"""Images to time: pages of text, tables and user interfaces, drawn from a seed.

What a strategy keeps, and so its time, may depend on the image: PixelPrune's on how much of it repeats.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from tokenprune.errors import SettingError, unknown

#: Every kind of image.
KINDS = ("page", "table", "screen")
INK, PALE, LINE, ACCENT = (32, 33, 36), (241, 243, 244), (218, 220, 224), (26, 115, 232)
WHITE = (255, 255, 255)

#: In pixels.
Length = int | float


def rendered(kind: str, side: int, seed: int = 0) -> Image.Image:
    """Draw a square image, `side` pixels wide. Raises SettingError for a kind that is not in KINDS."""
    draw_kind: dict[str, Callable[[Canvas], None]] = {"page": _page, "table": _table, "screen": _screen}
    if kind not in draw_kind:
        raise SettingError(unknown("kind of image", kind, KINDS))
    canvas = Canvas(side, Random(f"{kind} {seed}"))
    draw_kind[kind](canvas)
    return canvas.image


class Canvas:
    """A white image, the random numbers it is drawn from, and text in a typical size for it."""

    def __init__(self, side: int, rng: Random) -> None:
        self.side, self.rng = side, rng
        self.image = Image.new("RGB", (side, side), WHITE)
        self.draw = ImageDraw.Draw(self.image)
        self.size = max(6, side // 64)  # 16 px on 1024: 11 points on a page of that height, or a screen's text

    def font(self, scale: float = 1.0) -> ImageFont.FreeTypeFont:
        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), max(4, round(scale * self.size)))

    def words(self, count: int) -> str:
        """Words of random letters, with typical word lengths."""
        letters = "etaoinshrdlucmfwypvbgk"
        lengths = self.rng.choices(range(2, 11), [3, 6, 5, 4, 3, 3, 2, 2, 1], k=count)
        return " ".join("".join(self.rng.choices(letters, k=length)) for length in lengths)

    def text(self, x: Length, y: Length, text: str, scale: float = 1.0, fill: tuple[int, int, int] = INK) -> None:
        self.draw.text((round(x), round(y)), text, fill, self.font(scale))

    def box(
        self,
        left: Length,
        top: Length,
        right: Length,
        bottom: Length,
        fill: tuple[int, int, int],
        outline: bool = False,
    ) -> None:
        corners = (round(left), round(top), round(right), round(bottom))
        self.draw.rectangle(corners, fill, LINE if outline else None)

    def paragraph(self, x: Length, y: Length, width: Length, n_words: int) -> Length:
        """Draw lines of words that fill `width` pixels; return where the next one would begin."""
        line = ""
        for word in self.words(n_words).split():
            if line and self.draw.textlength(f"{line} {word}", self.font()) > width:
                self.text(x, y, line)
                line, y = "", y + 1.5 * self.size
            line = f"{line} {word}".strip()
        self.text(x, y, line)
        return y + 2.5 * self.size


def _page(canvas: Canvas) -> None:
    """A title, paragraphs down to the lower margin, and a page number."""
    side, margin = canvas.side, canvas.side / 9
    canvas.text(margin, margin, canvas.words(4).capitalize(), 1.8)
    y = margin + 4 * canvas.size
    while y < side - 1.8 * margin:
        y = canvas.paragraph(margin, y, side - 2 * margin, canvas.rng.randint(20, 45))
    canvas.text(side / 2, side - margin / 2, str(canvas.rng.randint(2, 99)))


def _table(canvas: Canvas) -> None:
    """A heading, and ruled rows of names and numbers under a shaded header."""
    side, margin, height = canvas.side, canvas.side / 12, 2.6 * canvas.size
    canvas.text(margin, margin / 2, canvas.words(5).capitalize(), 1.4)
    columns = [margin + (side - 2 * margin) * share for share in (0, 0.34, 0.56, 0.78, 1)]
    n_rows = int((side - 2.5 * margin) / height)
    for row in range(n_rows):
        top = 1.6 * margin + row * height
        canvas.box(columns[0], top, columns[-1], top + height, PALE if row == 0 else WHITE, outline=True)
        for column, left in enumerate(columns[:-1]):
            canvas.draw.line((round(left), round(top), round(left), round(top + height)), LINE)
            name = column == 0 or row == 0
            value = canvas.words(2 if column == 0 else 1) if name else f"{canvas.rng.uniform(1, 9999):,.2f}"
            canvas.text(left + canvas.size / 2, top + 0.7 * canvas.size, value)


def _screen(canvas: Canvas) -> None:
    """A window: a title bar with buttons, a list on the left, a toolbar, cards and a chart."""
    side, size, rng = canvas.side, canvas.size, canvas.rng
    bar, left = 3 * size, side / 5
    canvas.box(0, 0, side, bar, ACCENT)
    canvas.text(size, 0.9 * size, canvas.words(2).title(), 1.1, WHITE)
    canvas.box(0, bar, left, side, PALE)
    for item in range(int((side - 2 * bar) / (2.4 * size) / 1.6)):
        top = bar + size + item * 2.4 * size
        if item == 1:
            canvas.box(0, top - 0.5 * size, left, top + 1.7 * size, LINE)
        canvas.text(size, top, canvas.words(2))
    for button in range(4):
        x = left + size + button * 7 * size
        canvas.box(x, bar + size, x + 6 * size, bar + 3.2 * size, PALE, outline=True)
        canvas.text(x + size, bar + 1.5 * size, canvas.words(1)[:6])
    width, top = (side - left - 3 * size) / 2, bar + 5 * size
    for card in range(2):
        x = left + size + card * (width + size)
        canvas.box(x, top, x + width, top + 13 * size, WHITE, outline=True)
        canvas.text(x + size, top + size, canvas.words(2), 1.2)
        canvas.paragraph(x + size, top + 3.5 * size, width - 2 * size, rng.randint(12, 20))
    floor = side - 3 * size
    for column in range(8):
        x = left + 3 * size + column * 5 * size
        if x + 3 * size < side - size:
            canvas.box(x, floor - rng.uniform(2, 16) * size, x + 3 * size, floor, ACCENT)
    canvas.draw.line((round(left + 2 * size), round(floor), round(side - size), round(floor)), INK)

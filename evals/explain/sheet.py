"""An explanation as one figure: for each setup the kept tokens and their scores, the answer and the cost."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from tokenprune.evals.explain.outcomes import Explanation, Outcome
from tokenprune.evals.explain.panels import image_panel, key_panel, scores_panel
from tokenprune.evals.storage.files import naming

# In inches; fonts in points.
NARROWEST, TALLEST = 2.15, 3.6  # of a panel
WIDEST = 14.0  # of the sheet
MARGIN, GUTTER = 0.14, 0.16
SPACE = 0.24  # between rows
KEY = 2.1  # the height of the key
FONT, BIG = 11.5, 16.0
NARROWEST_CHARACTER = 0.25  # as a share of the font's size
DPI = 150
RULER = RendererAgg(1, 1, DPI)


@dataclass
class Sheet:
    """A figure with places in inches from the top left."""

    width: float
    height: float
    figure: Figure = field(init=False)

    def __post_init__(self) -> None:
        self.figure = Figure(figsize=(self.width, self.height), facecolor="white")
        FigureCanvasAgg(self.figure)

    def write(self, x: float, y: float, lines: Sequence[str], size: float = FONT, weight: str = "normal") -> float:
        """Write centred lines, and return where the next one would be. Answers are never parsed as formulas."""
        for line in lines:
            place = x / self.width, 1 - y / self.height
            style: dict[str, Any] = {"size": size, "weight": weight, "parse_math": False}
            self.figure.text(*place, line, ha="center", va="top", **style)
            y += line_height(size)
        return y

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        place = x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height
        return self.figure.add_axes(place)


@dataclass(frozen=True)
class Column:
    """An outcome's texts, broken into lines: above its image and below it."""

    outcome: Outcome
    title: list[str]
    cost: list[str]
    answer: list[str]


def draw(explanation: Explanation, path: Path) -> None:
    """Write the image: a column for each outcome, in as many rows as are needed, with the question above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        sheet(explanation).figure.savefig(path, dpi=DPI)


def sheet(explanation: Explanation) -> Sheet:
    width, height = panel_size(explanation)
    rows = rows_of(explanation, width)
    across = max(map(len, rows)) * (width + GUTTER) - GUTTER
    question = wrapped(explanation.question, across, BIG)
    sizes = [row_sizes(row, height, with_key=number == 0) for number, row in enumerate(rows)]
    head = MARGIN + len(question) * line_height(BIG) + 0.1
    result = Sheet(across + 2 * MARGIN, head + sum(sum(size) + height for size in sizes) + MARGIN)
    result.write(result.width / 2, MARGIN, question, BIG)
    y = head
    for row, (above, below, scores) in zip(rows, sizes, strict=True):
        for number, column in enumerate(row):
            if column is None:
                continue
            x, image_y, scores_y = MARGIN + number * (width + GUTTER), y + above, y + above + height + below
            middle = x + width / 2
            result.write(middle, result.write(middle, y, column.title, weight="bold"), column.cost)
            image_panel(result.axes(x, image_y, width, height), explanation, column.outcome)
            result.write(middle, image_y + height + 0.05, column.answer)
            if column.outcome is explanation.unpruned:
                key_panel(result.axes(x, scores_y, width, KEY), explanation)
            else:
                scores_panel(result.axes(x, scores_y, width, height), explanation, column.outcome)
        y += above + height + below + scores
    return result


def panel_size(explanation: Explanation) -> tuple[float, float]:
    """The size of a panel: of equal area for all image proportions, but wide enough for text and not too tall."""
    aspect = explanation.canvas.width / explanation.canvas.height
    width = max(NARROWEST, NARROWEST * min(aspect, 3.0) ** 0.5)
    return width, min(TALLEST, width / aspect)


def rows_of(explanation: Explanation, width: float) -> list[list[Column | None]]:
    """The unpruned model first; one row per keep ratio if that fits, else all in sequence."""
    unpruned, *others = (column_of(explanation, outcome, width) for outcome in explanation.outcomes)
    most = max(2, int((WIDEST - 2 * MARGIN + GUTTER) // (width + GUTTER)))
    ratios = [list(row) for _, row in groupby(others, lambda column: column.outcome.setup.keep_ratio)]
    if max(map(len, ratios), default=0) < most:
        return [[first, *row] for first, row in zip([unpruned, *[None] * len(ratios)], ratios or [[]], strict=False)]
    columns = [unpruned, *others]
    return [list(columns[start : start + most]) for start in range(0, len(columns), most)]


def column_of(explanation: Explanation, outcome: Outcome, width: float) -> Column:
    setup = outcome.setup
    cost = [outcome.kept.summary]
    if outcome.ttft is not None and outcome is not explanation.unpruned:
        cost.append(f"time to first token {outcome.ttft:.2f}x")
    if setup.position_ids == "compact":
        cost.insert(0, "compact position IDs")
    answer = wrapped(outcome.answer or "(no answer)", width)
    if verdict := explanation.verdict(outcome):
        answer += wrapped(verdict, width)
    return Column(
        outcome,
        wrapped(setup.label, width, weight="bold"),
        [line for text in cost for line in wrapped(text, width)],
        answer,
    )


def row_sizes(row: Sequence[Column | None], height: float, with_key: bool) -> tuple[float, float, float]:
    """The heights of what is above the images, of the answers, and of the scores; images are `height` high."""
    columns = [column for column in row if column is not None]
    above = max(len(column.title) + len(column.cost) for column in columns) * line_height(FONT) + 0.06
    below = max(len(column.answer) for column in columns) * line_height(FONT) + 0.12
    return above, below, max(height, KEY if with_key else 0) + SPACE


def wrapped(text: str, width: float, size: float = FONT, weight: str = "normal") -> list[str]:
    """The lines that a text fills in a column of `width` inches."""
    return [line for paragraph in text.splitlines() or [""] for line in _broken(paragraph, width, size, weight)]


def _broken(paragraph: str, width: float, size: float, weight: str) -> list[str]:
    """Lines of as many characters as fit."""
    lines = [paragraph]
    most = int(width * 72 / (NARROWEST_CHARACTER * size))
    for n in range(min(len(paragraph), most), 0, -1):
        lines = textwrap.wrap(paragraph, n)
        if all(text_width(line, size, weight) <= width for line in lines):
            break
    return lines


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a text in inches."""
    font = FontProperties(size=size, weight=weight)
    width, _, _ = RULER.get_text_width_height_descent(text, font, ismath=False)
    return width / RULER.dpi


def line_height(size: float) -> float:
    return 1.28 * size / 72

"""The panels of a sheet: the image with dropped patches dark, the importance scores, the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from tokenprune.evals.explain.canvas import Canvas, Raster
from tokenprune.evals.explain.outcomes import Explanation, Kept, Outcome
from tokenprune.evals.report.palette import ORANGE, SKY

BOXES: dict[str, tuple[str, Literal["-", "--"]]] = {"answered box": (ORANGE, "-"), "true box": (SKY, "--")}
HEAT = colormaps["cividis"]
#: The darkness of a token that the language model never sees, and of one that only its first layers see.
DROPPED, DROPPED_LATER = 0.78, 0.5
EMPTY, FAINT = "#efefec", "#5c5c5c"
TEXT = 10.5


def image_panel(axes: Axes, explanation: Explanation, outcome: Outcome) -> None:
    """Draw kept patches clear, dropped ones dark, and the boxes."""
    shown, kept = outcome.canvas or explanation.canvas, outcome.kept
    _fit(axes, shown)
    dark = np.where(kept.entered, np.where(kept.left, 0.0, DROPPED_LATER), DROPPED)
    for raster in shown.rasters:
        left, top, right, bottom = raster.place
        axes.imshow(raster.image, extent=(left, right, bottom, top))
        if raster.tokens.size:
            shade = np.zeros((*raster.tokens.shape, 4))
            shade[..., 3] = dark[raster.tokens]
            axes.imshow(shade, extent=(left, right, bottom, top), interpolation="nearest")
            _outlines(axes, raster, kept, "white")
    _received(axes, shown, kept)
    for name, box in ("true box", explanation.true_box), ("answered box", outcome.box):
        for x1, y1, x2, y2 in () if box is None else shown.boxes(box):
            color, dashes = BOXES[name]
            frame = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=color, ls=dashes, lw=2, clip_on=False)
            axes.add_patch(frame).set_path_effects([withStroke(linewidth=4, foreground="black")])


def scores_panel(axes: Axes, explanation: Explanation, outcome: Outcome) -> None:
    """Draw the importance scores by rank, with the kept tokens outlined, or say that there are none."""
    shown, kept = explanation.canvas, outcome.kept
    _fit(axes, shown)
    if kept.scores is None:
        axes.add_patch(Rectangle((0, 0), shown.width, shown.height, color=EMPTY))
        text = f"{outcome.setup.label.split()[0]}\nranks no tokens"
        turned = 90 if shown.height > 2 * shown.width else 0
        place = shown.width / 2, shown.height / 2
        axes.text(*place, text, ha="center", va="center", rotation=turned, color=FAINT, fontsize=TEXT)
        return
    values = ranks(kept.scores)
    for raster in shown.rasters:
        left, top, right, bottom = raster.place
        if not raster.tokens.size:
            axes.imshow(raster.image, extent=(left, right, bottom, top), alpha=0.3)
            continue
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, color=EMPTY, zorder=-1))
        heat = np.ma.masked_invalid(values[raster.tokens])
        axes.imshow(heat, cmap=HEAT, vmin=0, vmax=1, extent=(left, right, bottom, top), interpolation="nearest")
        _outlines(axes, raster, kept, "white")


def key_panel(axes: Axes, explanation: Explanation) -> None:
    """Draw the key to the image's colours and lines."""
    axes.set_axis_off()
    handles: list[Patch | Line2D] = []
    for name, (color, dashes) in BOXES.items():
        if explanation.true_box is not None if name == "true box" else explanation.has_boxes:
            handles.append(Patch(fill=False, edgecolor=color, linestyle=dashes, linewidth=2, label=name))
    handles.append(Patch(facecolor="#38383c", edgecolor="#38383c", label="dropped"))
    if explanation.has_later:
        handles.append(Patch(facecolor="#858585", edgecolor="#858585", label="dropped in the LLM"))
    if explanation.has_merged:
        dot = Line2D([], [], marker="o", color="none", markerfacecolor="white", markeredgecolor="black", markersize=5)
        dot.set_label("others merged in")
        handles.append(dot)
    style: dict[str, Any] = {"frameon": False, "fontsize": TEXT, "borderaxespad": 0, "borderpad": 0}
    axes.legend(handles=handles, loc="upper left", labelspacing=0.35, **style)
    if any(outcome.kept.scores is not None for outcome in explanation.outcomes):
        bar = axes.inset_axes((0.0, 0.13, 1.0, 0.08))
        bar.imshow(np.linspace(0, 1, 256)[None], cmap=HEAT, aspect="auto")
        bar.set_axis_off()
        for x, y, text in (0.0, 0.23, "importance, by rank"), (0.0, 0.03, "least"), (1.0, 0.03, "most"):
            side = "right" if x else "left"
            axes.text(x, y, text, transform=axes.transAxes, fontsize=TEXT, ha=side)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Scores as their ranks from 0 to 1, equal ones with their mean rank; NaN stays NaN.

    Attention is so uneven that its raw values would show a few bright patches on black.
    """
    from scipy.stats import rankdata

    result = np.full(scores.shape, np.nan)
    scored = ~np.isnan(scores)
    result[scored] = (rankdata(scores[scored]) - 1) / max(1, scored.sum() - 1)
    return result


def edges(mask: np.ndarray) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """The sides between a cell in the mask and one outside, as (x, y) to (x, y) in cells."""
    for row, column in np.argwhere(mask[1:] != mask[:-1]):
        yield (int(column), int(row) + 1), (int(column) + 1, int(row) + 1)
    for row, column in np.argwhere(mask[:, 1:] != mask[:, :-1]):
        yield (int(column) + 1, int(row)), (int(column) + 1, int(row) + 1)


def _fit(axes: Axes, shown: Canvas) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, shown.width)
    axes.set_ylim(shown.height, 0)
    axes.set_aspect("equal")


def _outlines(axes: Axes, raster: Raster, kept: Kept, color: str) -> None:
    left, top, right, bottom = raster.place
    rows, columns = raster.tokens.shape
    scale = np.array([(right - left) / columns, (bottom - top) / rows])
    lines = [[(left, top) + np.array(point) * scale for point in line] for line in edges(kept.left[raster.tokens])]
    axes.add_collection(LineCollection(lines, colors=color, linewidths=0.6, alpha=0.6))


def _received(axes: Axes, shown: Canvas, kept: Kept) -> None:
    for raster in shown.rasters:
        left, top, right, bottom = raster.place
        rows, columns = np.nonzero(kept.received[raster.tokens])
        if len(rows):
            width, height = (right - left) / raster.tokens.shape[1], (bottom - top) / raster.tokens.shape[0]
            points = axes.transData.transform([(0, 0), (min(width, height), 0)])
            side = (points[1, 0] - points[0, 0]) * 72 / axes.figure.dpi
            x, y = left + (columns + 0.5) * width, top + (rows + 0.5) * height
            axes.scatter(x, y, s=(0.3 * side) ** 2, color="white", edgecolors="black", linewidths=0.6)

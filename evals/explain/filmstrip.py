"""An explanation of a video, frame by frame: as a strip for each setup, and as an animation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tokenprune.evals.explain.canvas import Canvas, Raster
from tokenprune.evals.explain.outcomes import Explanation, Outcome
from tokenprune.evals.explain.panels import image_panel
from tokenprune.evals.explain.sheet import line_height, wrapped
from tokenprune.evals.storage.files import naming

# In inches; fonts in points.
FRAME, LABEL = 1.3, 2.1
FONT, DPI = 9.0, 120
#: How long a frame of the animation is shown, in milliseconds.
SHOWN = 700


def draw(explanation: Explanation, path: Path) -> None:
    """Write a PNG file: a row per setup, a column per frame, with the kept tokens of each."""
    frames, outcomes = explanation.canvas.rasters, explanation.outcomes
    figure = _figure(LABEL + FRAME * len(frames), (FRAME + 0.25) * len(outcomes) + 0.5, explanation.question)
    axes = figure.subplots(len(outcomes), len(frames) + 1, squeeze=False, width_ratios=[LABEL, *[FRAME] * len(frames)])
    for row, outcome in zip(axes, outcomes, strict=True):
        _label(row[0], explanation, outcome)
        for panel, frame in zip(row[1:], frames, strict=True):
            _panel(panel, explanation, outcome, frame)
    for number, panel in enumerate(axes[0, 1:], start=1):
        panel.set_title(f"frame {number}\n{panel.get_title()}", fontsize=FONT)
    _save(figure, path)


def animate(explanation: Explanation, path: Path) -> None:
    """Write an animated GIF file: all setups side by side, one frame after the other."""
    first, *others = [_at(explanation, number) for number in range(len(explanation.canvas.rasters))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        first.save(path, save_all=True, append_images=others, duration=SHOWN, loop=0)


def _at(explanation: Explanation, number: int) -> Image.Image:
    outcomes, frames = explanation.outcomes, explanation.canvas.rasters
    title = f"{explanation.question} (frame {number + 1} of {len(frames)})"
    names = [_named(outcome) for outcome in outcomes]
    height = LABEL + 0.9 + (max(map(len, names)) - 1) * line_height(FONT)
    figure = _figure((LABEL + 0.2) * len(outcomes), height, title)
    panels = figure.subplots(1, len(outcomes), squeeze=False)[0]
    for panel, outcome, name in zip(panels, outcomes, names, strict=True):
        _panel(panel, explanation, outcome, frames[number])
        panel.set_title("\n".join([*name, f"{panel.get_title()} in this frame"]), fontsize=FONT)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)


def _figure(width: float, height: float, title: str) -> Figure:
    """A figure with its title, taller by each title line beyond the first."""
    size = FONT + 2
    lines = wrapped(title, width - 0.2, size)
    higher = height + (len(lines) - 1) * line_height(size)
    figure = Figure(figsize=(width, higher), facecolor="white", layout="constrained", dpi=DPI)
    figure.suptitle("\n".join(lines), fontsize=size, parse_math=False)
    return figure


def _named(outcome: Outcome) -> list[str]:
    """The lines that distinguish a setup from all others."""
    compact = ["compact position IDs"] if outcome.setup.position_ids == "compact" else []
    texts = [outcome.setup.label, *compact, outcome.kept.summary]
    return [line for text in texts for line in wrapped(text, LABEL, FONT)]


def _panel(axes: Axes, explanation: Explanation, outcome: Outcome, frame: Raster) -> None:
    """Draw one frame, with its number of kept tokens above."""
    left, top, right, bottom = frame.place
    alone = replace(frame, place=(0.0, 0.0, right - left, bottom - top))
    image_panel(axes, replace(explanation, canvas=Canvas(right - left, bottom - top, (alone,))), outcome)
    axes.set_title(f"{outcome.kept.left[frame.tokens].sum()} of {frame.tokens.size}", fontsize=FONT)


def _label(axes: Axes, explanation: Explanation, outcome: Outcome) -> None:
    """Write what a row shows: the setup, its tokens, its answer."""
    axes.set_axis_off()
    lines: Sequence[str] = (
        *_named(outcome),
        f"answer: {_shortened(outcome.answer or '(none)')}",
    )
    verdict = explanation.verdict(outcome)
    axes.text(
        0.0,
        0.5,
        "\n".join([*lines, *([verdict] if verdict else [])]),
        fontsize=FONT,
        va="center",
        transform=axes.transAxes,
        parse_math=False,
    )


def _shortened(answer: str, most: int = 26) -> str:
    return answer if len(answer) <= most else f"{answer[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    with naming(path):
        figure.savefig(path, dpi=DPI)

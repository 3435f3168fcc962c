"""An image far larger than a model's input: the tiles examined coarse to fine, what pruning keeps, and the costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from tokenprune.evals.boxes import Box, parts_of
from tokenprune.evals.explain.explain import explain
from tokenprune.evals.explain.outcomes import Explanation
from tokenprune.evals.explain.panels import image_panel
from tokenprune.evals.explain.zoom import ANSWERED_FROM, COLORS, draw_look
from tokenprune.evals.report.palette import BLUE
from tokenprune.evals.run.setups import Setup
from tokenprune.prompts import encode_chat
from tokenprune.report import ImageReport
from tokenprune.zoom.attention import token_centers
from tokenprune.zoom.pyramid import Level, input_side, pyramid
from tokenprune.zoom.search import Look, Zoom

BATCH = 16  # tiles
DROPPED = 0.78  # opacity of the shade over dropped tokens
WIDTH, PANEL, DPI = 14.0, 6.6, 150  # in inches: the sheet and a large panel
FONT, BIG = 12, 15


@dataclass(frozen=True, eq=False)
class Cost:
    """n_encoded: images that went through the vision tower. n_visual: visual tokens that the language model saw."""

    way: str
    n_encoded: int
    n_visual: int


@dataclass(frozen=True, eq=False)
class LargeImage:
    """The results for one large image.

    look: the coarse-to-fine search. view: what the answer comes from, unpruned and pruned, in the view's own pixels.
    left: (rows, columns) of cells at full resolution: whether a cell holds a kept token, or one that is merged into a
        kept one.
    """

    image: Image.Image
    question: str
    true_box: Box | None
    look: Look
    view: Explanation
    level: Level
    left: np.ndarray
    costs: tuple[Cost, ...]


def examine(
    model: Any,
    processor: Any,
    image: Image.Image,
    question: str,
    pruned: Setup,
    true_box: Box | None = None,
    layer: int | None = None,
) -> LargeImage:
    """Search an image coarse to fine, answer from the view found, unpruned and pruned, and prune every tile.

    true_box: in pixels of the image. layer: as in `Zoom`. Raises ValueError for an image that fits in one tile.
    """
    tile = input_side(processor)
    levels = pyramid(*image.size, tile)
    if not levels:
        raise ValueError(f"{image.width} x {image.height} pixels are one tile of {tile}; take a larger image")
    look = Zoom(layer=layer).look(model, processor, image, question)
    (view,) = look.views
    own_box = None
    if true_box is not None:
        x1, y1, x2, y2 = parts_of(view.box, true_box)
        own_box = (tile * x1, tile * y1, tile * x2, tile * y2)
    shown = view.crop(image, tile)
    seen = explain(model, processor, shown, question, [pruned], true_box=own_box, rounds=0)
    reports = list(pruned_tiles(model, processor, image, question, pruned, levels[-1]))
    n_looked, n_tiles = sum(len(step.views) for step in look.steps) + 1, len(reports) + 1
    kept = [len(report.kept) for report in reports]
    costs = (
        Cost("every tile", n_tiles, look.n_all),
        Cost(f"every tile, {pruned.label}", n_tiles, round(sum(kept) * n_tiles / len(reports))),
        Cost("coarse to fine", n_looked, look.n_visual),
    )
    return LargeImage(image, question, true_box, look, seen, levels[-1], cells(reports, levels[-1]), costs)


@torch.inference_mode()
def pruned_tiles(
    model: Any, processor: Any, image: Image.Image, question: str, pruned: Setup, level: Level
) -> Iterator[ImageReport]:
    """Yield the report of every tile of a level, row by row. Each tile is processed separately."""
    tile, views = input_side(processor), list(level.views())
    for start in range(0, len(views), BATCH):
        tiles = [[view.crop(image, tile)] for view in views[start : start + BATCH]]
        with pruned.patched(model) as handle:
            model(
                **encode_chat(processor, tiles, [question] * len(tiles)).to(model.device, model.dtype), use_cache=False
            )
            yield from handle.report.images


def cells(reports: list[ImageReport], level: Level) -> np.ndarray:
    """Return which cells of a whole level still hold something."""
    sides = [max(grid[axis] for grid in reports[0].grids) for axis in (1, 2)]
    tiles = np.zeros((level.rows, level.columns, *sides), dtype=bool)
    for number, report in enumerate(reports):
        still = report.kept if report.merged is None else torch.cat([report.kept, report.merged.sources])
        places = token_centers(report.layout)[still.cpu()].numpy()
        x, y = places[~np.isnan(places).any(1)].T
        tiles[divmod(number, level.columns)][(y * sides[0]).astype(int), (x * sides[1]).astype(int)] = True
    return tiles.transpose(0, 2, 1, 3).reshape(level.rows * sides[0], level.columns * sides[1])


def draw(large: LargeImage, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure(large).savefig(path, dpi=DPI)


def figure(large: LargeImage) -> Figure:
    """Draw the whole image twice at the top, with the examined tiles and with what is left of every tile. Below are the
    view that was answered from, unpruned and pruned, and the costs."""
    wide = PANEL * large.image.height / large.image.width
    sheet = Figure(figsize=(WIDTH, wide + 5.6), facecolor="white", layout="constrained")
    FigureCanvasAgg(sheet)
    halves: Any = sheet.subfigures(2, 1, height_ratios=[wide + 1.2, 4.1])
    above, below = halves
    above.suptitle(large.question, fontsize=BIG + 2, parse_math=False)
    left, right = above.subplots(1, 2)
    _looked_at(left, large)
    _left(right, large)
    panels = below.subplots(1, 3, width_ratios=[1, 1, 1.75])
    for axes, outcome in zip(panels, large.view.outcomes, strict=False):
        image_panel(axes, large.view, outcome)
        axes.set_title(f"{outcome.setup.label}\n{outcome.kept.summary}", fontsize=FONT)
        axes.text(0.5, -0.03, outcome.answer, transform=axes.transAxes, ha="center", va="top", fontsize=FONT)
    _costs(panels[2], large.costs)
    return sheet


def _looked_at(axes: Axes, large: LargeImage) -> None:
    axes.set_axis_off()
    axes.imshow(draw_look(large.image, large.look, width=round(PANEL * DPI)))
    n_tiles = sum(view.level is not None for step in large.look.steps for view in step.views)
    axes.set_title(f"coarse to fine: {n_tiles} tiles and a thumbnail examined", fontsize=BIG)
    names = ["coarsest level", *(f"level {number}" for number in range(2, len(COLORS) + 1))][: len(large.look.steps)]
    named = [*zip(COLORS, names, strict=False), (ANSWERED_FROM, "answered from")]
    axes.legend(
        handles=[Patch(fill=False, edgecolor=color, linewidth=2.5, label=name) for color, name in named],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=len(named),
        facecolor="#333333",  # frames are drawn on a dark image, and those of the coarsest level are white
        edgecolor="none",
        framealpha=1.0,
        labelcolor="white",
        fontsize=FONT,
        columnspacing=1.2,
    )


def _left(axes: Axes, large: LargeImage) -> None:
    axes.set_axis_off()
    width, height = large.image.size
    right, bottom = large.level.columns * large.level.span, large.level.rows * large.level.span
    axes.imshow(large.image, extent=(0, width, height, 0))
    shade = np.zeros((*large.left.shape, 4))
    shade[..., 3] = np.where(large.left, 0.0, DROPPED)
    axes.imshow(shade, extent=(0, right, bottom, 0), interpolation="nearest")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    every, pruned, _ = large.costs
    share = pruned.n_visual / every.n_visual
    axes.set_title(f"{pruned.way}: {share:.0%} of the visual tokens", fontsize=BIG)


def _costs(axes: Axes, costs: tuple[Cost, ...]) -> None:
    """Draw bars, as shares of the largest cost."""
    axes.set_axis_off()
    groups = {
        "images through the vision tower": [cost.n_encoded for cost in costs],
        "visual tokens through the language model": [cost.n_visual for cost in costs],
    }
    y = 0.0
    for title, numbers in groups.items():
        axes.text(0, y, title, fontsize=FONT, weight="bold", va="center")
        for cost, number in zip(costs, numbers, strict=True):
            y += 1
            axes.barh(y, number / max(numbers), height=0.8, color=BLUE)
            axes.text(number / max(numbers) + 0.02, y, f"{number:,}", fontsize=FONT, va="center")
            axes.text(-0.02, y, cost.way, fontsize=FONT, va="center", ha="right")
        y += 1.4
    axes.set_xlim(-0.9, 1.25)
    axes.set_ylim(y - 0.5, -0.7)

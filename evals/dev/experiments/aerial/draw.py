"""A figure of the visual tokens that each strategy keeps of part of an aerial photograph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Patch, Rectangle

from tokenprune import BackgroundPruning, Random
from tokenprune.engine.select import checked_selection
from tokenprune.evals.dev.experiments.aerial.photographs import Photograph
from tokenprune.evals.report.palette import ORANGE, SKY
from tokenprune.tokens import VisualTokens

KEEP = 24
PANELS = {
    "both steps": BackgroundPruning(),
    "Background Token Pruning alone": BackgroundPruning(rank="distinct"),
    "Anchored Token Selection alone": BackgroundPruning(cluster=False),
    "Random": Random(),
}
#: The first tile shown (row, column), and how many per side: a part of the first photograph with meadow and trees.
CORNER, SIDE = (4, 3), 3
KEPT, TREE = ORANGE, SKY


def draw(photograph: Photograph, tokens: VisualTokens, patch: int, path: Path) -> None:
    """Draw all PANELS at KEEP visual tokens per tile, as much of the part as the photograph has."""
    mpl.use("Agg")
    top, left = (max(0, min(first, n - SIDE)) for first, n in zip(CORNER, photograph.tiles, strict=True))
    down, across = (min(SIDE, n) for n in photograph.tiles)
    box = [place * photograph.side for place in (left, top, left + across, top + down)]
    n_tiles, per_side = photograph.tiles[0] * photograph.tiles[1], photograph.side // patch
    figure, panels = plt.subplots(2, 2, figsize=(14, 15.2))
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    for axes, (name, strategy) in zip(panels.flat, PANELS.items(), strict=True):
        selection = checked_selection(replace(strategy, keep_ratio=None, keep=KEEP * n_tiles), tokens)
        states = np.zeros(tokens.n_visual)  # dropped, merged into a kept token, kept
        if selection.merged is not None:
            states[selection.merged.sources.cpu().numpy()] = 1
        states[selection.kept.cpu().numpy()] = 2
        grid = states.reshape(*photograph.tiles, per_side, per_side)[top : top + down, left : left + across]
        axes.set_title(f"{name}: {KEEP} of {per_side**2} visual tokens a tile", fontsize=13)
        axes.imshow(photograph.image.crop((box[0], box[1], box[2], box[3])))
        panel(axes, grid.transpose(0, 2, 1, 3).reshape(down * per_side, across * per_side), patch, photograph.side)
        x1, y1, x2, y2 = (photograph.boxes - [box[0], box[1]] * 2).T
        trees = [Rectangle((x, y), w, h) for x, y, w, h in zip(x1, y1, x2 - x1, y2 - y1, strict=True)]
        axes.add_collection(PatchCollection(trees, facecolor="none", edgecolor=TREE, linewidth=1.2))
        axes.set_xlim(0, across * photograph.side)
        axes.set_ylim(down * photograph.side, 0)
        axes.set_axis_off()
    handles = [
        Patch(fill=False, edgecolor=KEPT, linewidth=2, label="kept visual token"),
        Patch(facecolor="#bbbbbb", label="clear: merged into a kept one"),
        Patch(facecolor="#333333", label="dark: dropped"),
        Patch(fill=False, edgecolor=TREE, linewidth=1.5, label="box of a tree"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=13, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def panel(axes: Axes, states: np.ndarray, patch: int, side: int) -> None:
    """Draw dropped tokens dark, merged ones clear, and kept ones with a frame. Tiles are `side` pixels wide."""
    rows, columns = states.shape
    darkness = np.zeros((rows, columns, 4))
    darkness[..., 3] = 0.68 * (states == 0)
    axes.imshow(darkness, extent=(0, columns * patch, rows * patch, 0), interpolation="nearest")
    for lines in range(0, rows * patch + 1, side):
        axes.axhline(lines, color="white", linewidth=0.6)
        axes.axvline(lines, color="white", linewidth=0.6)
    frames = [Rectangle((x * patch + 1, y * patch + 1), patch - 2, patch - 2) for y, x in np.argwhere(states == 2)]
    axes.add_collection(PatchCollection(frames, facecolor="none", edgecolor=KEPT, linewidth=1.8))

"""Draw a search of `tokenprune optimize`: what each trial was worth, and the schedule that it found."""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tokenprune.settings_file import SettingsFile
from tokenprune.strategies.vflowopt import VFlowOpt

# Okabe and Ito's colours: told apart by colour-blind people too.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"


def draw(path: Path, output: Path) -> None:
    """Draw the settings file at `path` into the picture `output`. ValueError where no search wrote it."""
    file = SettingsFile.read(path)
    if not file.search:
        raise ValueError(f'{path}: no "search", so there is nothing to draw; only `tokenprune optimize` writes one')
    mpl.use("Agg")
    figure, (history, schedule) = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
    best, default = VFlowOpt(**file.settings), VFlowOpt(**file.search["base"])
    _history(history, file.search)
    _schedule(schedule, default, best, file.model["layers"], round(file.search["data"]["visual_tokens"]))
    data = file.search["data"]
    split = "" if data["split"] is None else f", split {data['split']}"
    figure.suptitle(
        f"VFlowOpt at {best.keep_ratio:.0%} average retention: {file.model['name'] or file.model['class']}, "
        f"{len(data['ids'])} questions of {data['name'] or 'a set'}{split}",
        fontsize=13,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)
    plt.close(figure)


def _history(axes: Axes, search: Mapping[str, Any]) -> None:
    values = [trial["objective"] for trial in search["trials"]]
    best = search["objective"]["best_trial"]
    axes.axhline(values[0], color=GREY, linestyle="--", label=f"default: {values[0]:.4f}")
    axes.plot(values, "o", color=BLUE, markersize=5, alpha=0.7, label="one trial")
    axes.step(range(len(values)), list(accumulate(values, max)), where="post", color=ORANGE, label="best so far")
    axes.plot(best, values[best], "*", color=ORANGE, markersize=15, label=f"best, trial {best}: {values[best]:.4f}")
    axes.set_xlabel("trial", fontsize=11)
    what = {"last_token": "last prompt token", "mean_pooled": "text behind the picture, pooled"}
    axes.set_ylabel(f"cosine to the unpruned state\n({what[search['objective']['state']]})", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Search", fontsize=12)
    _legend_below(axes)
    axes.grid(alpha=0.3)


def _schedule(axes: Axes, default: VFlowOpt, found: VFlowOpt, n_layers: int, n_visual: int) -> None:
    before, counts = (tokens_per_layer(strategy, n_layers, n_visual) for strategy in (default, found))
    edges = range(n_layers + 1)
    axes.stairs(before, edges, baseline=None, color=GREY, linestyle="--", linewidth=2.5, label="default")
    axes.stairs(counts, edges, baseline=None, color=ORANGE, linewidth=2.5, label="found")
    assert found.keep_ratio is not None
    axes.axhline(
        found.keep_ratio * n_visual, color=BLUE, linewidth=1.5, linestyle=":", label=f"average, {found.keep_ratio:.0%}"
    )
    first = 0
    for last, (count, following) in enumerate(pairwise([*counts, 0])):
        if count != following:
            offset = 5 if count >= before[first] else -15  # away from the other line
            middle = (first + last + 1) / 2, count
            text = axes.annotate(
                str(count), middle, (0, offset), textcoords="offset points", ha="center", fontsize=11, color=ORANGE
            )
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})  # lines may pass behind it
            first = last + 1
    axes.set_ylim(0, 1.2 * max(*before, *counts))
    axes.set_xlim(0, n_layers)
    axes.set_xlabel("decoder layer", fontsize=11)
    axes.set_ylabel(f"visual tokens (of {n_visual})", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Schedule", fontsize=12)
    _legend_below(axes)
    axes.grid(alpha=0.3)


def _legend_below(axes: Axes) -> None:
    axes.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)


def tokens_per_layer(strategy: VFlowOpt, n_layers: int, n_visual: int) -> list[int]:
    """Return how many of a picture's `n_visual` tokens each decoder layer sees."""
    counts = [strategy.budget(n_visual)] * n_layers
    for stage in strategy.stages(n_layers):
        counts[stage.layer :] = [stage.budget(n_visual)] * (n_layers - stage.layer)
    return counts

"""Draw a search of `tokenprune optimize`: the value of each trial, and the settings and schedule found."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tokenprune.errors import DataError
from tokenprune.evals.report.palette import BLUE, GREY, VERMILION
from tokenprune.evals.search.space import LOGARITHMIC, SearchSpace
from tokenprune.evals.storage.files import naming
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.strategies.settings import SettingsFile

#: Labels of the searched settings, from the top.
VARIABLES = {
    "first": "R1: share that enters",
    "second_place": "R2, within what the budget leaves",
    "threshold": "threshold of an anchor",
    "alpha": "alpha: weight of entropy",
    "cell": "cell of recycling, in tokens (logarithmic)",
}


def draw(path: Path, output: Path) -> None:
    """Draw the settings file at `path` into the image file `output`. Raises DataError if no search wrote it."""
    file = SettingsFile.read(path)
    if not file.search:
        raise DataError(f'{path}: no "search", so there is nothing to draw; only `tokenprune optimize` writes one')
    mpl.use("Agg")
    drawn = figure(file)
    output.parent.mkdir(parents=True, exist_ok=True)
    with naming(output):
        drawn.savefig(output, dpi=130)
    plt.close(drawn)


def figure(file: SettingsFile) -> Figure:
    result, (history, box, schedule) = plt.subplots(1, 3, figsize=(17, 5.6), width_ratios=(1.15, 1, 0.95))
    result.set_layout_engine("constrained", w_pad=0.15, h_pad=0.1)
    search, n_layers = file.search, file.model["layers"]
    best, default = (cast(VFlowOpt, file.strategy_class(**settings)) for settings in (file.settings, search["base"]))
    _history(history, search)
    _box(box, search, n_layers)
    _schedule(schedule, default, best, n_layers, round(search["data"]["visual_tokens"]))
    data = search["data"]
    split = "" if data["split"] is None else f", split {data['split']}"
    result.suptitle(
        f"VFlowOpt at {100 * (best.keep_ratio or 0):g} % average keep ratio: "
        f"{file.model['name'] or file.model['class']}, {len(data['ids'])} questions of "
        f"{data['name'] or 'a set'}{split}",
        fontsize=15,
        parse_math=False,
    )
    for axes in result.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=11)
    return result


def _history(axes: Axes, search: Mapping[str, Any]) -> None:
    values = [trial["objective"] for trial in search["trials"]]
    best = search["objective"]["best_trial"]
    axes.axhline(values[0], color=GREY, linestyle="--", label=f"default settings: {values[0]:.4f}")
    axes.plot(values, "o", color=BLUE, markersize=6, alpha=0.7, label="one trial")
    so_far = list(accumulate(values, max))
    axes.step(range(len(values)), so_far, where="post", color=VERMILION, linewidth=2, label="best so far")
    axes.plot(best, values[best], "*", color=VERMILION, markersize=18, label=f"best, trial {best}: {values[best]:.4f}")
    axes.set_xlabel("trial", fontsize=12)
    what = {"last_token": "last prompt token", "mean_pooled": "text after the image, pooled"}
    axes.set_ylabel(f"cosine to the unpruned state\n({what[search['objective']['state']]})", fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_title("Value of each trial", fontsize=13)
    _legend_below(axes)
    axes.grid(alpha=0.3)


def _box(axes: Axes, search: Mapping[str, Any], n_layers: int) -> None:
    """Draw each searched setting as a line from its lowest to its highest value, with every trial on it."""
    sides, trials = search["box"], places(search, n_layers)
    best = search["objective"]["best_trial"]
    names = [name for name in VARIABLES if name in sides]
    for height, name in zip(range(len(names), 0, -1), names, strict=True):
        on_line = [trial[name] for trial in trials]
        axes.hlines(height, 0, 1, color="#bbbbbb", linewidth=1.5, zorder=1)
        axes.plot(on_line, [height] * len(on_line), "o", color=BLUE, markersize=6, alpha=0.35, zorder=2)
        axes.plot(on_line[0], height, "o", color=GREY, markersize=12, fillstyle="none", markeredgewidth=2, zorder=3)
        axes.plot(on_line[best], height, "*", color=VERMILION, markersize=18, zorder=4)
        axes.annotate(VARIABLES[name], (0, height), (0, 14), textcoords="offset points", fontsize=12)
        low, high = ("low", "high") if name == "second_place" else (f"{end:.3g}" for end in sides[name])
        axes.annotate(low, (0, height), (-14, 0), textcoords="offset points", fontsize=11, ha="right", va="center")
        axes.annotate(high, (1, height), (14, 0), textcoords="offset points", fontsize=11, ha="left", va="center")
    axes.set(xlim=(-0.16, 1.16), ylim=(0.5, len(names) + 0.6))
    axes.set_title("Where each setting was found", fontsize=13)
    axes.set_axis_off()
    axes.plot([], [], "o", color=BLUE, markersize=6, alpha=0.35, label="one trial")
    axes.plot([], [], "o", color=GREY, markersize=12, fillstyle="none", markeredgewidth=2, label="default")
    axes.plot([], [], "*", color=VERMILION, markersize=18, label="best")
    _legend_below(axes, 3)


def places(search: Mapping[str, Any], n_layers: int) -> list[dict[str, float]]:
    """Return where each trial lies in the search space: 0 is the lowest value of a setting, 1 the highest, on the scale
    it is searched on."""
    sides, known = search["box"], {field.name for field in fields(VFlowOpt)}
    highest = {name: side[1] for name, side in sides.items()}
    base = VFlowOpt(**{name: value for name, value in search["base"].items() if name in known})
    box = SearchSpace(base, n_layers, int(highest.get("cell", 1)), highest["threshold"], colors="alpha" in sides)
    places = []
    for trial in search["trials"]:
        settings = {name: value for name, value in trial.items() if name in known}
        point = box.point(replace(base, **settings))
        places.append({name: _place(name, point[name], sides[name]) for name in sides})
    return places


def _place(name: str, value: float, side: Sequence[float]) -> float:
    low, high = side
    if name in LOGARITHMIC:
        value, low, high = (math.log(number) for number in (value, low, high))
    return (value - low) / (high - low)


def _schedule(axes: Axes, default: VFlowOpt, best: VFlowOpt, n_layers: int, n_visual: int) -> None:
    before, counts = (tokens_per_layer(strategy, n_layers, n_visual) for strategy in (default, best))
    edges = [layer - 0.5 for layer in range(n_layers + 1)]
    axes.stairs(counts, edges, fill=True, color=VERMILION, alpha=0.15)
    axes.stairs(before, edges, baseline=None, color=GREY, linestyle="--", linewidth=2.5, label="default settings")
    axes.stairs(counts, edges, baseline=None, color=VERMILION, linewidth=3, label="best")
    average = 100 * (best.keep_ratio or 0)
    axes.axhline(average * n_visual / 100, color=BLUE, linestyle=":", label=f"average of both, {average:g} %")
    first = 0
    for last, (count, following) in enumerate(pairwise([*counts, 0])):
        if count != following:
            above = count >= before[first]  # away from the other line
            axes.annotate(
                f"{count}",
                ((first + last) / 2, count),
                (0, 6 if above else -6),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                fontsize=13,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},  # a line may run through it
            )
            first = last + 1
    axes.set_ylim(0, 1.2 * max(*before, *counts))
    axes.set_xlim(-0.5, n_layers - 0.5)
    axes.set_xlabel("decoder layer", fontsize=12)
    axes.set_ylabel(f"visual tokens that it sees, of {n_visual}", fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("The schedule", fontsize=13)
    _legend_below(axes)
    axes.grid(axis="y", alpha=0.3)


def _legend_below(axes: Axes, columns: int = 2) -> None:
    axes.legend(fontsize=11, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns, frameon=False)


def tokens_per_layer(strategy: VFlowOpt, n_layers: int, n_visual: int) -> list[int]:
    """Return how many of an image's `n_visual` tokens each decoder layer sees."""
    counts = [strategy.budget(n_visual)] * n_layers
    for stage in strategy.stages(n_layers):
        counts[stage.layer :] = [stage.budget(n_visual)] * (n_layers - stage.layer)
    return counts

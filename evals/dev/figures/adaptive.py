"""The figure on adaptive budgets: accuracy against the average number of visual tokens, adaptive and fixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tokenprune.evals.report.palette import COLORS, GREY

APART = 0.7


def draw(records: Sequence[dict[str, Any]], output: Path) -> None:
    figure(records).savefig(output, dpi=130)


def figure(records: Sequence[dict[str, Any]]) -> Figure:
    """Draw one panel per task, from the records of `dev.experiments.adaptive`. Bars are 95 % intervals; each series is
    shifted APART tokens to the right of the previous one, so that none covers another."""
    tasks = list(dict.fromkeys(one["task"] for one in records))
    result = Figure(figsize=(4.6 * len(tasks), 4.2), layout="constrained")
    FigureCanvasAgg(result)
    for axes, task in zip(result.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        _panel(axes, task, [one for one in records if one["task"] == task])
    return result


def _panel(axes: Axes, task: str, records: Sequence[dict[str, Any]]) -> None:
    pruned = [one for one in records if one["strategy"] != "unpruned"]
    strategies = list(dict.fromkeys(one["strategy"] for one in pruned))
    shift = -APART * len(strategies)
    for color, strategy in zip(COLORS, strategies, strict=False):
        own = sorted((one for one in pruned if one["strategy"] == strategy), key=lambda one: one["fixed"]["tokens"])
        for kind, marker, line in (("adaptive", "o", "-"), ("fixed", "s", ":")):
            points = [one[kind] for one in own]
            means = [100 * point["accuracy"] for point in points]
            bars = [
                [abs(100 * point["interval"][side] - mean) for point, mean in zip(points, means, strict=True)]
                for side in (0, 1)
            ]
            axes.errorbar(
                [point["tokens"] + shift for point in points],
                means,
                yerr=bars,
                fmt=marker,
                linestyle=line,
                color=color,
                capsize=2,
                elinewidth=1,
                fillstyle="full" if kind == "adaptive" else "none",
                label=f"{strategy.partition(':')[0]}, {kind}",
            )
            shift += APART
    for one in records:
        if one["strategy"] == "unpruned":
            axes.axhline(100 * one["accuracy"], color=GREY, linestyle="--", linewidth=1, label="unpruned")
    axes.set_xlim(0, 1.4 * max(one["adaptive"]["tokens"] for one in pruned) + 10)
    axes.set_ylim(0, 100)
    axes.set_title(task.upper())
    axes.set_xlabel("visual tokens, mean")
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)

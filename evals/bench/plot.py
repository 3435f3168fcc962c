"""TTFT over retention: every strategy and the ideal, relative to the unpruned model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tokenprune.evals.bench.cases import IDEAL
from tokenprune.evals.bench.figures import Figures
from tokenprune.evals.pareto import COLORS, MARKERS


def draw(figures: Sequence[Figures], path: Path, title: str) -> None:
    """Write one panel a batch size. Intervals are 95 %; the ideal is that of strategies that prune before the language
    model only."""
    timed = [one for one in figures if one.ttft_to_unpruned is not None]
    batches = list(dict.fromkeys(one.facts.batch for one in timed))
    names = list(dict.fromkeys(one.facts.strategy for one in timed if one.is_strategy))
    figure = Figure(figsize=(1.4 + 5.0 * len(batches), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(batches), squeeze=False, sharey=True).flatten()
    for axes, batch in zip(panels, batches, strict=True):
        _panel(axes, [one for one in timed if one.facts.batch == batch], names)
        axes.set_title(f"batch of {batch}", fontsize=11)
    panels[0].set_ylabel("TTFT, relative to the unpruned model")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=130)


def _panel(axes: Axes, figures: Sequence[Figures], names: Sequence[str]) -> None:
    ideals = [one for one in figures if one.facts.strategy == IDEAL and one.facts.n_mean == one.facts.n_kept]
    _line(axes, ideals, IDEAL, color="black", linewidth=2.5, zorder=1)
    for index, name in enumerate(names):
        shown = [one for one in figures if one.facts.strategy == name]
        style = {"color": COLORS[index % (len(COLORS) - 1)], "marker": MARKERS[index % len(MARKERS)], "alpha": 0.8}
        _line(axes, shown, name, **style)
    axes.axhline(1.0, color="gray", linestyle=":", label="unpruned")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("retention: visual tokens that a decoder layer sees, in the mean")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _line(axes: Axes, figures: Sequence[Figures], label: str, **style: Any) -> None:
    shown = sorted(figures, key=lambda one: one.facts.n_mean)
    points = [
        (one.facts.n_mean / one.facts.n_visual, one.ttft_to_unpruned)
        for one in shown
        if one.ttft_to_unpruned is not None
    ]
    values = [ratio.value for _, ratio in points]
    axes.errorbar(
        [share for share, _ in points],
        values,
        yerr=[[ratio.value - ratio.low for _, ratio in points], [ratio.high - ratio.value for _, ratio in points]],
        label=label,
        elinewidth=1,
        **style,
    )

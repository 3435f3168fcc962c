"""TTFT of every strategy and of its ideal, relative to the unpruned model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tokenprune.evals.bench.figures import Figures, Median
from tokenprune.evals.report.palette import BLUE
from tokenprune.evals.storage.files import naming


def draw(figures: Sequence[Figures], path: Path, title: str) -> None:
    """Write one panel per batch size and keep ratio, one line per strategy, the fastest first. Intervals are 95 %."""
    timed = [case for case in figures if case.ttft_to_unpruned is not None]
    strategies = [case for case in timed if case.is_strategy]
    batches = list(dict.fromkeys(case.facts.batch for case in strategies))
    ratios = sorted({case.facts.keep_ratio for case in strategies}, reverse=True)
    n_lines = len({case.facts.strategy for case in strategies})
    size = (2.2 + 3.2 * len(ratios), 1.4 + len(batches) * (0.9 + 0.27 * n_lines))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(batches), len(ratios), squeeze=False, sharex=True)
    for batch, row in zip(batches, panels, strict=True):
        for ratio, axes in zip(ratios, row, strict=True):
            shown = [case for case in strategies if (case.facts.batch, case.facts.keep_ratio) == (batch, ratio)]
            _panel(axes, shown, {case.facts.name: case for case in timed if case.facts.batch == batch})
            axes.set_title(
                f"{100 * ratio:g}% of the visual tokens" + f", batch of {batch}" * (len(batches) > 1), fontsize=10
            )
    for axes in panels[-1]:
        axes.set_xlabel("TTFT, relative to the unpruned model", fontsize=9)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11, parse_math=False)
    with naming(path):
        figure.savefig(path, dpi=130)


def _panel(axes: Axes, figures: Sequence[Figures], named: Mapping[str, Figures]) -> None:
    timed = [(case.ttft_to_unpruned, case) for case in figures if case.ttft_to_unpruned is not None]
    timed.sort(key=lambda line: line[0].value, reverse=True)  # from the bottom
    ideals = [named[case.facts.ideal].ttft_to_unpruned if case.facts.ideal is not None else None for _, case in timed]
    _points(axes, ideals, "its ideal", marker="|", markersize=13, markeredgewidth=2, color="black", elinewidth=0)
    _points(axes, [ratio for ratio, _ in timed], "strategy", marker="o", markersize=5, color=BLUE, elinewidth=1.2)
    axes.axvline(1.0, color="gray", linestyle=":", label="unpruned")
    axes.set_yticks(range(len(timed)), [case.facts.strategy for _, case in timed], fontsize=8, parse_math=False)
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _points(axes: Axes, ratios: Sequence[Median | None], label: str, **style: Any) -> None:
    """Draw one point at each height, and none where there is no ratio."""
    shown = [(height, ratio) for height, ratio in enumerate(ratios) if ratio is not None]
    axes.errorbar(
        [ratio.value for _, ratio in shown],
        [height for height, _ in shown],
        xerr=[[ratio.value - ratio.low for _, ratio in shown], [ratio.high - ratio.value for _, ratio in shown]],
        linestyle="none",
        label=label,
        **style,
    )

"""Accuracy against visual tokens: one figure, with a panel for each set and task."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from tokenprune.evals.report.palette import COLORS, GREY
from tokenprune.evals.report.tables import task_title
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.files import naming
from tokenprune.evals.storage.results import TaskResult

MARKERS = "osD^vP*Xhp<>"
COLUMNS = 2
#: In octaves: strategies that see equally many tokens are drawn apart, so that their intervals do not overlap; the
#: largest step between neighbours, and the largest spread in total.
ASIDE, ALL_ASIDE = 0.06, 0.4

Place = Callable[[TaskResult], float]


def draw(rows: Sequence[TaskResult], folder: Path) -> list[Path]:
    """Write the plot as PNG and SVG, and return their paths. There is none if no task has two setups with answers."""
    by_task: dict[tuple[str, str], list[TaskResult]] = {}
    for row in rows:
        if row.n:
            by_task.setdefault((row.dataset, row.task), []).append(row)
    panels = [panel for panel in by_task.values() if len(panel) > 1]
    if not panels:
        return []
    drawn, paths = figure(panels), [folder / f"accuracy.{ending}" for ending in ("png", "svg")]
    for path in paths:
        with naming(path):
            drawn.savefig(path, dpi=130)
    return paths


def figure(panels: Sequence[Sequence[TaskResult]]) -> Figure:
    """Return the figure with one legend. The rows of a panel are of one set and task."""
    rows = [row for panel in panels for row in panel]
    strategies = [name for name in dict.fromkeys(row.strategy for row in rows) if name != UNPRUNED]
    n_columns = min(COLUMNS, len(panels))
    n_lines = -(-len(panels) // n_columns)
    result = Figure(figsize=(max(6.4, 5.2 * n_columns), 4.4 * n_lines + 1.0), layout="constrained")
    FigureCanvasAgg(result)
    places = result.subplots(n_lines, n_columns, squeeze=False).flatten()
    several = len({row.dataset for row in rows}) > 1
    for axes, panel in zip(places, panels, strict=False):
        _panel(axes, panel, strategies)
        least, most = min(row.n for row in panel), max(row.n for row in panel)  # questions that failed do not count
        n = f"n = {most}" if least == most else f"n = {least} to {most}"
        title = task_title(panel[0]) + (f" on {panel[0].dataset}" if several else "")
        axes.set_title(f"{title} ({n})", fontsize=12, parse_math=False)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    handles = _legend(strategies, rows)
    legend = result.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    for name in legend.get_texts():  # a settings file's name may have dollar signs
        name.set_parse_math(False)
    return result


def _panel(axes: Axes, rows: Sequence[TaskResult], strategies: Sequence[str]) -> None:
    place = _places(strategies)
    for index, strategy in enumerate(strategies):
        for position_ids in ("compact", "original"):  # the original ones lie on top
            line = [row for row in rows if (row.strategy, row.position_ids) == (strategy, position_ids)]
            _line(axes, sorted(line, key=place), place, _style(index, position_ids))
    for row in rows:
        if row.strategy == UNPRUNED:
            _line(axes, [row], place, {"color": GREY, "marker": "o"})
            axes.axhspan(*(100 * bound for bound in row.interval), color=GREY, alpha=0.12, linewidth=0)
            axes.axhline(100 * row.accuracy, color=GREY, linestyle=":", linewidth=1.5)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("visual tokens that a decoder layer sees (mean)")
    axes.set_ylabel(f"{rows[0].metric}, %")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _places(strategies: Sequence[str]) -> Place:
    """Return where rows are drawn: at their visual tokens, with strategies that see equally many side by side."""
    step, middle = min(ASIDE, ALL_ASIDE / len(strategies)) if strategies else 0.0, (len(strategies) - 1) / 2
    aside = {name: 2 ** (step * (index - middle)) for index, name in enumerate(strategies)}
    return lambda row: row.n_mean * aside.get(row.strategy, 1.0)


def _line(axes: Axes, rows: Sequence[TaskResult], place: Place, style: dict[str, Any]) -> None:
    if not rows:
        return
    bars = [(row.accuracy - row.interval[0], row.interval[1] - row.accuracy) for row in rows]
    below, above = zip(*(([100 * max(0.0, length) for length in bar]) for bar in bars), strict=True)
    values = [100 * row.accuracy for row in rows]
    axes.errorbar([place(row) for row in rows], values, yerr=[below, above], elinewidth=1, **style)


def _style(index: int, position_ids: str) -> dict[str, Any]:
    compact = position_ids == "compact"
    return {
        "color": COLORS[index % len(COLORS)],
        "marker": MARKERS[index % len(MARKERS)],
        "fillstyle": "none" if compact else "full",
        "linestyle": "--" if compact else "-",
        "alpha": 0.5 if compact else 1.0,
    }


def _legend(strategies: Sequence[str], rows: Sequence[TaskResult]) -> list[Line2D]:
    handles = [Line2D([], [], **_style(index, "original"), label=name) for index, name in enumerate(strategies)]
    if any(row.position_ids == "compact" for row in rows):
        handles.append(Line2D([], [], color="gray", linestyle="--", label="compact position IDs"))
    return [*handles, Line2D([], [], color=GREY, linestyle=":", marker="o", label="unpruned")]

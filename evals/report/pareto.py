"""Accuracy against visual tokens and against time, one panel per task, with Pareto-optimal setups ringed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from tokenprune.evals.report.palette import COLORS
from tokenprune.evals.report.tables import task_title
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.files import naming
from tokenprune.evals.storage.results import TaskResult

MARKERS = "osD^vP*Xhp<>"
COLUMNS = 2
#: In octaves: strategies that see equally many tokens are drawn apart, so that their intervals do not overlap; the
#: largest step between neighbours, and the largest spread in total.
ASIDE, ALL_ASIDE = 0.06, 0.4

Cost = Callable[[TaskResult], float]


@dataclass(frozen=True)
class Axis:
    """A cost that accuracy is drawn against. Tokens are on a logarithmic scale; time begins at 0."""

    name: str
    cost: Cost
    is_tokens: bool = False


def draw(rows: Sequence[TaskResult], folder: Path, dataset: str) -> list[Path]:
    """Write the plots of the set called `dataset` as PNG and SVG, and return their paths.

    Times are plotted only if all of a task's were measured on one device with the same packages. If every question
    failed, there is no plot at all.
    """
    rows = [row for row in rows if row.n]
    if not rows:
        return []
    axes = {"tokens": Axis("visual tokens that a decoder layer sees (mean)", lambda row: row.n_mean, is_tokens=True)}
    unpruned = {row.task: row.seconds for row in rows if row.strategy == UNPRUNED and row.seconds}
    places = {(row.task, row.device, row.dtype, *row.versions.items()) for row in rows}
    alike = len(places) == len({row.task for row in rows})
    if alike and all(row.seconds and row.task in unpruned for row in rows):
        axes["time"] = Axis(
            "time to answer, relative to unpruned", lambda row: (row.seconds or 0) / (unpruned[row.task] or 1)
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, axis in axes.items():
        drawn = figure(rows, axis)
        for ending in ("png", "svg"):
            paths.append(folder / f"{dataset}_accuracy_against_{name}.{ending}")
            with naming(paths[-1]):
                drawn.savefig(paths[-1], dpi=130)
    return paths


def figure(rows: Sequence[TaskResult], axis: Axis) -> Figure:
    tasks = list(dict.fromkeys(row.task for row in rows))
    strategies = [name for name in dict.fromkeys(row.strategy for row in rows) if name != UNPRUNED]
    n_columns = min(COLUMNS, len(tasks))
    n_lines = -(-len(tasks) // n_columns)
    result = Figure(figsize=(max(6.4, 5.2 * n_columns), 4.4 * n_lines + 1.0), layout="constrained")
    FigureCanvasAgg(result)
    panels = result.subplots(n_lines, n_columns, squeeze=False).flatten()
    for axes, task in zip(panels, tasks, strict=False):
        _panel(axes, [row for row in rows if row.task == task], strategies, axis)
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    handles = _legend(strategies, rows)
    legend = result.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=10)
    for name in legend.get_texts():  # a settings file's name may have dollar signs
        name.set_parse_math(False)
    return result


def _panel(axes: Axes, rows: Sequence[TaskResult], strategies: Sequence[str], axis: Axis) -> None:
    place = _places(strategies, axis)
    for row in rows:
        if row.strategy == UNPRUNED:
            axes.axhline(100 * row.accuracy, color="gray", linestyle=":", linewidth=1.5)
            axes.plot(place(row), 100 * row.accuracy, "o", color="gray")
    for index, strategy in enumerate(strategies):
        for position_ids in ("compact", "original"):  # the original ones lie on top
            line = [row for row in rows if (row.strategy, row.position_ids) == (strategy, position_ids)]
            line.sort(key=place)
            if line:
                _line(axes, line, place, _style(index, position_ids))
    for row in pareto_front(rows, axis.cost):
        axes.plot(place(row), 100 * row.accuracy, "o", markersize=15, fillstyle="none", color="black", zorder=4)
    if axis.is_tokens:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(axis.name)
    axes.set_ylabel(f"{rows[0].metric}, %")
    least, most = min(row.n for row in rows), max(row.n for row in rows)  # questions that failed do not count
    n = f"{most}" if least == most else f"{least} to {most}"
    axes.set_title(f"{task_title(rows[0])} (n = {n})", fontsize=12)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _places(strategies: Sequence[str], axis: Axis) -> Cost:
    """Return where rows are drawn: at their cost, with strategies that see equally many tokens side by side."""
    if not axis.is_tokens:
        return axis.cost
    step, middle = min(ASIDE, ALL_ASIDE / len(strategies)) if strategies else 0.0, (len(strategies) - 1) / 2
    aside = {name: 2 ** (step * (index - middle)) for index, name in enumerate(strategies)}
    return lambda row: axis.cost(row) * aside.get(row.strategy, 1.0)


def _line(axes: Axes, rows: Sequence[TaskResult], place: Cost, style: dict[str, object]) -> None:
    bars = [(row.accuracy - row.interval[0], row.interval[1] - row.accuracy) for row in rows]
    below, above = zip(*(([100 * max(0.0, length) for length in bar]) for bar in bars), strict=True)
    axes.errorbar(
        [place(row) for row in rows],
        [100 * row.accuracy for row in rows],
        yerr=[below, above],
        elinewidth=1,
        **style,  # pyright: ignore[reportArgumentType]
    )


def _style(index: int, position_ids: str) -> dict[str, object]:
    compact = position_ids == "compact"
    return {
        "color": COLORS[index % len(COLORS)],
        "marker": MARKERS[index % len(MARKERS)],
        "fillstyle": "none" if compact else "full",
        "linestyle": "--" if compact else "-",
        "alpha": 0.5 if compact else 1.0,
    }


def pareto_front(rows: Sequence[TaskResult], cost: Cost) -> list[TaskResult]:
    """Return the rows that no other row beats in both accuracy and cost."""
    front: list[TaskResult] = []
    for row in sorted(rows, key=lambda row: (cost(row), -row.accuracy)):
        if not front or row.accuracy > front[-1].accuracy:
            front.append(row)
    return front


def _legend(strategies: Sequence[str], rows: Sequence[TaskResult]) -> list[Line2D]:
    handles = [Line2D([], [], **_style(index, "original"), label=name) for index, name in enumerate(strategies)]  # pyright: ignore[reportArgumentType]
    if any(row.position_ids == "compact" for row in rows):
        handles.append(Line2D([], [], color="gray", linestyle="--", label="compact position IDs"))
    handles.append(Line2D([], [], color="gray", linestyle=":", marker="o", label="unpruned"))
    handles.append(
        Line2D(
            [],
            [],
            color="black",
            marker="o",
            markersize=12,
            fillstyle="none",
            linestyle="",
            label="none is better and cheaper",
        )
    )
    return handles

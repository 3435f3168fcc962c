"""The figure on keep ratios and KV cache precision: accuracy against the cache's size, one line per precision.

    python -m tokenprune.evals.dev.figures.kv_precision evals/results/data/kv_precision.png

draws the stored rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tokenprune.evals.cli.arguments.parser import script_parser
from tokenprune.evals.dev.tables.accuracy.kv_precision import ROWS, grid_of
from tokenprune.evals.report.palette import BLUE, GREEN, ORANGE, VERMILION
from tokenprune.evals.report.tables import task_title
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.results_io import read

#: Colors of the precisions, from the highest to the lowest.
STYLES = ((BLUE, "o", "-"), (GREEN, "s", "--"), (ORANGE, "D", "-."), (VERMILION, "^", ":"))


def figure(rows: Sequence[TaskResult]) -> Figure:
    """Draw one panel per task. Keep ratios are written at the points of the highest precision."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    result = Figure(figsize=(5.6 * len(tasks), 4.8), layout="constrained")
    FigureCanvasAgg(result)
    panels = result.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(panels, tasks, strict=True):
        _panel(axes, [row for row in rows if row.task == task])
    handles, labels = panels[0].get_legend_handles_labels()
    result.legend(handles, labels, loc="outside lower center", ncols=len(STYLES), frameon=False, fontsize=11)
    return result


def _panel(axes: Axes, rows: Sequence[TaskResult]) -> None:
    grid = grid_of(rows)
    for (bits, by_ratio), (color, mark, dashes) in zip(grid.items(), STYLES, strict=False):
        line = [row for of_tasks in by_ratio.values() for row in of_tasks.values()]
        x = [row.kv_cache_bytes / 1e6 for row in line]
        y = [100 * row.accuracy for row in line]
        bars = [[100 * (row.accuracy - row.interval[0]) for row in line]]
        bars += [[100 * (row.interval[1] - row.accuracy) for row in line]]
        axes.errorbar(x, y, yerr=bars, color=color, marker=mark, linestyle=dashes, markersize=7, linewidth=2,
                      elinewidth=1, label=f"{bits} bits")  # fmt: skip
        for row, left, up in zip(line, x, y, strict=True) if bits == max(grid) else ():
            axes.annotate(f"{100 * row.keep_ratio:g} %", (left, up), (7, -12), textcoords="offset points", fontsize=10)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.1)
    axes.set_xlabel("KV cache of the prompt, MB")
    axes.set_ylabel(f"{rows[0].metric}, % (bars: 95 % interval)")
    axes.set_title(f"{task_title(rows[0])} (n = {rows[0].n})", fontsize=12)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = script_parser(__doc__)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="file to write the figure to")
    parser.add_argument("--table", type=Path, default=ROWS, metavar="FILE", help="rows of the experiment")
    options = parser.parse_args(arguments)
    figure(read([options.table])).savefig(options.image, dpi=130)


if __name__ == "__main__":
    main()

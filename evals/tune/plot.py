"""Loss against cost of every setting tried, with intervals, and those tested."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tokenprune.evals.report.palette import BLUE, GREY, VERMILION
from tokenprune.evals.storage.files import naming
from tokenprune.evals.tune.confirm import Tuned
from tokenprune.evals.tune.page import COST_NAMES, About


def draw(tuned: Tuned, about: About, output: Path) -> None:
    with naming(output):
        figure(tuned, about).savefig(output, dpi=130)


def figure(tuned: Tuned, about: About) -> Figure:
    """The Pareto plot. Bars are the lower and upper bounds, each with 95 % confidence."""
    result = Figure(figsize=(8.6, 5.6), layout="constrained")
    FigureCanvasAgg(result)
    axes = result.subplots()
    halved = [tried for tried in tuned.tried if not tried.complete]
    axes.plot(
        [100 * tried.cost for tried in halved],
        [tried.loss.points for tried in halved],
        "x",
        color=GREY,
        alpha=0.5,
        label="dropped after fewer questions",
    )
    complete = [(tried.cost, tried.loss) for tried in tuned.tried if tried.complete]
    fresh = [(tested.tried.cost, tested.loss) for tested in tuned.tested]
    for points, color, marker, label in (
        (complete, BLUE, "o", "asked the whole first half"),
        (fresh, VERMILION, "D", "tested on fresh questions"),
    ):
        if points:
            lows, highs = zip(*(loss.interval for _, loss in points), strict=True)
            means = [loss.points for _, loss in points]
            below = [max(0.0, mean - low) for mean, low in zip(means, lows, strict=True)]
            above = [max(0.0, high - mean) for mean, high in zip(means, highs, strict=True)]
            costs = [100 * cost for cost, _ in points]
            axes.errorbar(
                costs, means, yerr=[below, above], fmt=marker, color=color, label=label, capsize=2, elinewidth=1
            )
    if tuned.best is not None:
        loss = next(tested.loss for tested in tuned.tested if tested.tried is tuned.best)
        verdict = "recommended" if tuned.passed else "most promising, not shown to stay within the bound"
        axes.plot(
            100 * tuned.best.cost,
            loss.points,
            "o",
            markersize=17,
            fillstyle="none",
            color="black",
            label=f"{verdict}: {tuned.best.setup.label} @ {tuned.best.setup.keep_ratio:g}",
        )
    axes.axhline(about.max_loss, color="black", linestyle=":", label=f"{about.max_loss:g} points")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel(f"{COST_NAMES[about.cost]}, % of the unpruned model's")
    axes.set_ylabel(f"points of {about.score} lost")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return result

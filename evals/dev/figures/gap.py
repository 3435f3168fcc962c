"""The figure on position IDs and grounding: the boxes of one scene, and accuracy against the keep ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from tokenprune.evals.boxes import Box, iou
from tokenprune.evals.defaults import POSITION_IDS
from tokenprune.evals.report.palette import GREY, ORANGE, PURPLE, SKY
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.answers import Answer, AnswerKey, SetupKey
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.refcoco import RefCocoQuestion

#: Color, dashes, mark.
STYLES = {
    "original": (ORANGE, "-", "o"),
    "compact": (PURPLE, (0, (1, 1)), "s"),
    "true box": (SKY, (0, (5, 2)), ""),
}
PANELS = 4  # copies of the scene, at most
#: Where to write a curve's name: the offset from its middle point, and which end of the name goes there.
NAME_PLACES = {"original": ((4, 10), "left"), "compact": ((-26, -26), "right")}


@dataclass(frozen=True)
class Scene:
    """One question, and its answer at each keep ratio with each kind of position IDs."""

    question: RefCocoQuestion
    answers: Mapping[tuple[float, str], Answer]

    @classmethod
    def first_correct(cls, questions: Sequence[Question], answers: Mapping[AnswerKey, Answer]) -> Scene:
        """Return the scene of the first question that the unpruned model answers correctly, or of the first one."""
        unpruned = SetupKey(UNPRUNED, "original", 1.0)
        unpruned_answers = {answer.id: answer for answer in answers.values() if answer.key == unpruned}
        asked = [s for s in questions if isinstance(s, RefCocoQuestion) and s.id in unpruned_answers]
        question = next((s for s in asked if unpruned_answers[s.id].score), asked[0])
        own = [answer for answer in answers.values() if answer.id == question.id and answer.key != unpruned]
        return cls(question, {(answer.keep_ratio, answer.position_ids): answer for answer in own})


@dataclass(frozen=True)
class Point:
    """An accuracy and its 95 % interval, all in per cent."""

    kept: float
    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, row: TaskResult) -> Point:
        return cls(100 * row.keep_ratio, 100 * row.accuracy, *(100 * end for end in row.interval))


def curves(rows: Sequence[TaskResult]) -> dict[str, list[Point]]:
    """The points of each kind of position IDs, the highest keep ratio first.

    Both curves begin with the unpruned model: if nothing is dropped, the two kinds of position IDs are the same.
    """
    (unpruned,) = (row for row in rows if row.strategy == UNPRUNED)
    by_ids = {}
    for ids in POSITION_IDS:
        pruned = [row for row in rows if row.strategy != UNPRUNED and row.position_ids == ids]
        by_ids[ids] = [Point.of(row) for row in [unpruned, *sorted(pruned, key=lambda row: -row.keep_ratio)]]
    return by_ids


def draw(rows: Sequence[TaskResult], scene: Scene, path: Path) -> None:
    """Write the figure of one strategy on one task. `rows` include the unpruned model's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure(rows, scene).savefig(path, dpi=130)


def figure(rows: Sequence[TaskResult], scene: Scene) -> Figure:
    result = Figure(figsize=(14.5, 7.4), layout="constrained")
    FigureCanvasAgg(result)
    result.get_layout_engine().set(w_pad=0.12)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    halves: Any = result.subfigures(1, 2, width_ratios=(1, 1.15), wspace=0.03)
    left, right = halves
    ratios = sorted({ratio for ratio, _ in scene.answers}, reverse=True)
    shown = ratios if len(ratios) <= PANELS else [ratios[round(i * (len(ratios) - 1) / 3)] for i in range(PANELS)]
    left.suptitle(scene.question.text, fontsize=15)
    for axes, ratio in zip(left.subplots(2, 2, squeeze=False).flat, shown, strict=False):
        _scene(axes, scene, ratio)
    for axes in left.axes[len(shown) :]:
        axes.set_axis_off()
    names = {"original": "original position IDs", "compact": "compact position IDs", "true box": "true box"}
    handles = [
        Line2D([], [], color=color, linestyle=dashes, linewidth=3, label=names[name])
        for name, (color, dashes, _) in STYLES.items()
    ]
    left.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=12, columnspacing=1.2)
    _curves(right.subplots(), rows)
    return result


def _scene(axes: Axes, scene: Scene, ratio: float) -> None:
    (image,), question = scene.question.open_images(), scene.question
    axes.imshow(image, extent=(0, image.width, image.height, 0))
    of_ids = {ids: answer for (keep_ratio, ids), answer in scene.answers.items() if keep_ratio == ratio}
    answer = next(iter(of_ids.values()))
    if len(answer.kept) == 1 and len(answer.kept[0].grids) == 1:  # tiles would lie on top of each other
        window = question.style.view(question.size).window
        _darken(axes, ~answer.kept[0].mask(answer.n_visual), answer.kept[0].grids[0], window)
    answered = {ids: question.answered_box(answer.text) for ids, answer in of_ids.items()}
    overlaps = [f"{ids} {f'{iou(box, question.box):.2f}' if box else 'no box'}" for ids, box in answered.items()]
    for name, box in {"true box": question.box, **answered}.items():
        if box is not None:
            _outline(axes, box, name)
    axes.set(xlim=(0, image.width), ylim=(image.height, 0))
    axes.set_title(
        f"{100 * ratio:g} %: {answer.n_kept} of {answer.n_visual} visual tokens\nIoU {', '.join(overlaps)}", fontsize=12
    )
    axes.set_axis_off()


def _darken(axes: Axes, dropped: np.ndarray, grid: tuple[int, int, int], window: Box) -> None:
    left, top, right, bottom = window
    shade = np.zeros((*grid[1:], 4))
    shade[..., 3] = 0.6 * dropped.reshape(grid[1:])
    axes.imshow(shade, extent=(left, right, bottom, top), interpolation="nearest")


def _outline(axes: Axes, box: Box, name: str) -> None:
    x1, y1, x2, y2 = box
    color, dashes, _ = STYLES[name]
    line = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linestyle=dashes, linewidth=3)
    axes.add_patch(line).set_path_effects([withStroke(linewidth=5, foreground="black")])


def _curves(axes: Axes, rows: Sequence[TaskResult]) -> None:
    by_ids, row = curves(rows), next(row for row in rows if row.strategy != UNPRUNED)
    unpruned = by_ids["original"][0]
    axes.axhline(unpruned.accuracy, color=GREY, linestyle="--", linewidth=1.8)
    axes.annotate(f"unpruned {unpruned.accuracy:.3g} %", (1, unpruned.accuracy), (-10, 5), color=GREY, fontsize=13,
                  xycoords=axes.get_yaxis_transform(), textcoords="offset points", ha="right")  # fmt: skip
    for ids, points in by_ids.items():
        color, dashes, mark = STYLES[ids]
        x, y = [point.kept for point in points], [point.accuracy for point in points]
        axes.fill_between(x, [p.low for p in points], [p.high for p in points], color=color, alpha=0.22, linewidth=0)
        axes.plot(x, y, color=color, linestyle=dashes, marker=mark, markersize=8, linewidth=2.8, label=ids)
        # The curves fall, so the upper one's name fits above it, and the lower one's below.
        middle, (place, side) = points[len(points) // 2], NAME_PLACES[ids]
        axes.annotate(f"{ids} position IDs", (middle.kept, middle.accuracy), place, fontsize=13,
                      textcoords="offset points", ha=side, weight="bold")  # fmt: skip
        for point in points[1:]:
            axes.annotate(f"{point.accuracy:.3g}", (point.kept, point.accuracy), (0, -18), fontsize=12,
                          textcoords="offset points", ha="center")  # fmt: skip
    axes.margins(x=0.07)
    axes.invert_xaxis()
    axes.set_xticks([point.kept for point in by_ids["original"]])
    axes.xaxis.set_major_formatter("{x:g} %")
    axes.set_ylim(-8, 100)
    axes.set_yticks(range(0, 101, 20))
    axes.tick_params(labelsize=12)
    axes.set_xlabel("visual tokens kept", fontsize=13)
    axes.set_ylabel(f"REC {row.metric}, % (bands: 95 % interval)", fontsize=13)
    axes.set_title(f"{row.strategy} on {row.n} questions ({row.model}, {row.dtype})", fontsize=15)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)

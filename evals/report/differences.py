"""Paired comparisons as tables: position IDs, strategies with a baseline, and pruned with unpruned."""

from collections.abc import Mapping, Sequence
from math import isfinite

from tokenprune.errors import SettingError
from tokenprune.evals.report.estimate import Estimate
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.report.tables import BASELINE, compared, first_of_tasks, task_title
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.stats import Paired
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.results import TaskResult, answered_by_both, by_setup, compare


def difference_table(rows: Sequence[TaskResult], baseline: str | None = None) -> Table | None:
    """Return paired differences in points: each strategy's position IDs, and each strategy against `baseline`, by
    default random selection if measured; None if there is nothing to compare with."""
    tasks = first_of_tasks(rows)
    groups = by_setup(rows)
    baseline = baseline or BASELINE
    lines = []
    for key in compared(groups):
        if key.strategy == UNPRUNED:
            continue
        own = groups[key]
        compact = groups.get(key._replace(position_ids="compact"), {}) if key.position_ids == "original" else {}
        other = groups.get(key._replace(strategy=baseline), {}) if key.strategy != baseline else {}
        cells = [difference_cell(_paired(own, others, task)) for others in (compact, other) for task in tasks]
        lines.append([f"{100 * key.keep_ratio:g} %", _called(key), *cells])
    headings = [
        f"{task_title(row)}, {what}"
        for what in ("original - compact IDs", f"strategy - {baseline}")
        for row in tasks.values()
    ]
    told = [n for n in range(2, len(headings) + 2) if any(line[n] != NOTHING for line in lines)]
    if not told:
        return None
    kept = [0, 1, *told]
    headings = ["keep ratio", "strategy", *headings]
    return Table([headings[n] for n in kept], [[line[n] for n in kept] for line in lines])


def check_baseline(rows: Sequence[TaskResult], baseline: str | None) -> None:
    """Raise SettingError for a `baseline` that was not measured, and for the unpruned model, which all are compared
    with anyway."""
    names = [name for name in dict.fromkeys(row.strategy for row in rows) if name != UNPRUNED]
    if baseline is not None and baseline not in names:
        said = "is always compared with" if baseline == UNPRUNED else "was not measured"
        raise SettingError(f"--baseline {baseline!r} {said}; leave it out, or choose another of {', '.join(names)}")


def unpruned_table(rows: Sequence[TaskResult]) -> Table | None:
    """Return what each setup that is `compared` loses against the unpruned model, in three numbers a task: the
    difference in points, the accuracy relative to the unpruned model's, and McNemar's p. None if the unpruned model was
    not measured."""
    tasks = first_of_tasks(rows)
    groups = by_setup(rows)
    unpruned = next((group for key, group in groups.items() if key.strategy == UNPRUNED), None)
    if unpruned is None:
        return None
    lines = []
    for key in compared(groups):
        if key.strategy != UNPRUNED:
            own = groups[key]
            losses = [_paired(own, unpruned, task) for task in tasks]
            lines.append(
                [f"{100 * key.keep_ratio:g} %", _called(key), *(cell for loss in losses for cell in _loss(loss))]
            )
    headings = [f"{task_title(row)}{what}" for row in tasks.values() for what in (", points", ", relative", ", p")]
    return Table(["keep ratio", "strategy", *headings], lines)


def mean_table(rows: Sequence[TaskResult]) -> Table | None:
    """Return the mean over tasks of each setup's accuracy relative to the unpruned model's, in per cent, with the
    interval of independent tasks. None for a single task, or if the unpruned model was not measured."""
    tasks, groups = first_of_tasks(rows), by_setup(rows)
    unpruned = next((group for key, group in groups.items() if key.strategy == UNPRUNED), None)
    if unpruned is None or len(tasks) < 2:
        return None
    lines = []
    for key in compared(groups):
        losses = [] if key.strategy == UNPRUNED else [_paired(groups[key], unpruned, task) for task in tasks]
        relative = [
            Estimate.of(loss.relative, loss.relative_interval, 100.0)
            for loss in losses
            if loss is not None and isfinite(loss.relative)
        ]
        if losses and len(relative) == len(tasks):
            mean = str(Estimate.total(relative, 1 / len(relative)))
            lines.append([f"{100 * key.keep_ratio:g} %", _called(key), mean])
    return Table(["keep ratio", "strategy", f"mean of {len(tasks)} tasks, relative"], lines) if lines else None


def _paired(own: Mapping[str, TaskResult], other: Mapping[str, TaskResult], task: str) -> Paired | None:
    """Return the paired comparison; None if one was not measured on the task, or every question failed under one."""
    if task not in own or task not in other or not answered_by_both(own[task], other[task]):
        return None
    return compare(own[task], other[task])


def _loss(loss: Paired | None) -> tuple[str, str, str]:
    if loss is None:
        return NOTHING, NOTHING, NOTHING
    low, high = (100 * bound for bound in loss.relative_interval)
    interval = f" [{low:.0f}, {high:.0f}]" if isfinite(low) else ""  # too few questions for an interval
    relative = f"{100 * loss.relative:.1f} %{interval}" if isfinite(loss.relative) else NOTHING
    p = NOTHING if loss.p is None else "< 0.001" if loss.p < 0.001 else f"{loss.p:.3f}"
    return difference_cell(loss), relative, p


def difference_cell(difference: Paired | None) -> str:
    """A paired difference in points, with its 95 % interval."""
    if difference is None:
        return NOTHING
    low, high = difference.interval
    interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if isfinite(low) else ""
    return f"{100 * difference.difference:+.1f}{interval}"


def _called(key: SetupKey) -> str:
    """Return a strategy's name, with its position IDs unless they are the original ones."""
    return key.strategy if key.position_ids == "original" else f"{key.strategy}, {key.position_ids} IDs"

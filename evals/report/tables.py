"""The results as Markdown: accuracy of every setup, of every split, and paired differences."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from statistics import fmean

from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.results import TaskResult, by_setup
from tokenprune.evals.tasks import TASKS

BASELINE = "Random"  # as results call it
_Cell = Callable[[Mapping[str, TaskResult]], str]


def accuracy_table(rows: Sequence[TaskResult]) -> Table:
    """Return one line per setup, those that keep most first; `rows` are of one set."""
    tasks = first_of_tasks(rows)
    headings = [f"{task_title(row)} {row.metric} (n = {row.n})" for row in tasks.values()]
    lines = []
    groups = by_setup(rows)
    each = each_task(groups.values(), _share)
    for key in sorted(groups, key=lambda key: -key.keep_ratio):
        lines.append(
            [
                *setup_cells(key, groups[key]),
                each(groups[key]),
                _cache(first_answered(groups[key])),
                *(accuracy_cell(groups[key].get(task), first.n) for task, first in tasks.items()),
            ]
        )
    return Table(["keep ratio", "strategy", "position IDs", "visual tokens a layer", "KV cache", *headings], lines)


def summary_table(rows: Sequence[TaskResult]) -> Table:
    """Return one line per strategy and keep ratio, with both position IDs if any row has compact ones, best mean over
    its measured tasks first; `rows` are of one set."""
    tasks = first_of_tasks(rows)
    groups = by_setup(rows)
    position_ids = ("original", *({"compact"} & {key.position_ids for key in groups}))

    def rank(key: SetupKey) -> tuple[float, float]:
        measured = [row.accuracy for row in groups[key].values() if row.n]
        return -key.keep_ratio, -fmean(measured) if measured else 1.0

    whole = dict.fromkeys(f"{row.n_visual:.0f}" for row in tasks.values() if row.n)
    if len(whole) == 1:
        visual, each = f"visual tokens a layer, of {''.join(whole)}", each_task(groups.values(), _n_mean)
    else:
        visual, each = "visual tokens a layer", each_task(groups.values(), _share)
    lines = []
    for key in sorted(compared(groups), key=rank):
        own, both = groups[key], [groups.get(key._replace(position_ids=ids), {}) for ids in position_ids]
        share, strategy, _ = setup_cells(key, own)
        cells = [accuracy_cell(group.get(task), first.n) for task, first in tasks.items() for group in both]
        lines.append([share, strategy, each(own), _cache(first_answered(own)), *cells])
    headings = [
        f"{task_title(row)} {row.metric}{', compact IDs' if ids == 'compact' else f' (n = {row.n})'}"
        for row in tasks.values()
        for ids in position_ids
    ]
    return Table(["keep ratio", "strategy", visual, "KV cache", *headings], lines)


def split_table(rows: Sequence[TaskResult]) -> Table:
    """Return the unpruned model's accuracy on each set as a whole and on each of its splits."""
    tasks = first_of_tasks(rows)
    sets: dict[str, dict[str, TaskResult]] = {}
    for row in rows:
        if row.strategy == UNPRUNED:
            sets.setdefault(row.dataset, {})[row.task] = row
    lines = []
    for dataset, whole in sets.items():
        lines.append([dataset, "all", *(_counted(whole.get(task)) for task in tasks)])
        if any(len(row.scores) > 1 for row in whole.values()):
            for split in dict.fromkeys(split for row in whole.values() for split in row.scores):
                parts = {task: row.of_split(split) for task, row in whole.items() if split in row.scores}
                lines.append([dataset, split or NOTHING, *(_counted(parts.get(task)) for task in tasks)])
    headings = [f"{task_title(row)} {row.metric}" for row in tasks.values()]
    return Table(["set", "split", *headings], lines)


def compared(groups: Mapping[SetupKey, object]) -> list[SetupKey]:
    """Return the setups to compare with others, those that keep most first: with original position IDs, or with compact
    ones if no others were measured."""
    twins = {key: key._replace(position_ids="original") for key in groups}
    chosen = (key for key in groups if key == twins[key] or twins[key] not in groups)
    return sorted(chosen, key=lambda key: -key.keep_ratio)


def further_metrics_table(rows: Sequence[TaskResult]) -> Table | None:
    """Return a set's metrics other than the main ones, and how many answers were unparsable and how many questions
    failed, if any; None if there is nothing to show."""
    tasks = first_of_tasks(rows)
    columns = [
        (task, name)
        for task in tasks
        for name in dict.fromkeys(name for row in rows if row.task == task for name in row.metrics)
        if name != tasks[task].metric
    ]
    counts = [
        (task, count)
        for task in tasks
        for count in ("unparsable", "failed")
        if any(getattr(row, count) for row in rows if row.task == task)
    ]
    if not columns and not counts:
        return None
    groups = by_setup(rows)
    lines = []
    for key in sorted(groups, key=lambda key: -key.keep_ratio):
        own = groups[key]
        lines.append(
            [
                *setup_cells(key, own),
                *(_further(own.get(task), name) for task, name in columns),
                *(str(getattr(own[task], count)) if task in own else NOTHING for task, count in counts),
            ]
        )
    headings = [
        f"{task_title(tasks[task])} {name}{' (points)' if _is_sum(tasks[task], name) else ''}"
        for task, name in [*columns, *counts]
    ]
    return Table(["keep ratio", "strategy", "position IDs", *headings], lines)


def task_title(row: TaskResult) -> str:
    """Return the name of the row's task in tables."""
    return TASKS[row.task].title if row.task in TASKS else row.task


def setup_cells(key: SetupKey, of_tasks: Mapping[str, TaskResult]) -> tuple[str, str, str]:
    """Return keep ratio, strategy and position IDs of a setup, empty if nothing is pruned."""
    is_pruned = any(row.settings for row in of_tasks.values())
    return f"{100 * key.keep_ratio:g} %", key.strategy, key.position_ids if is_pruned else NOTHING


def _is_sum(row: TaskResult, metric: str) -> bool:
    return row.task in TASKS and metric in TASKS[row.task].sums


def _further(row: TaskResult | None, metric: str) -> str:
    """Format a share in per cent with its interval, and a sum as it is."""
    if row is None or metric not in row.metrics:
        return NOTHING
    scale = 1 if _is_sum(row, metric) else 100
    if metric not in row.intervals:
        return f"{scale * row.metrics[metric]:.1f}"
    low, high = row.intervals[metric]
    return f"{scale * row.metrics[metric]:.1f} [{scale * low:.0f}, {scale * high:.0f}]"


def first_of_tasks(rows: Sequence[TaskResult]) -> dict[str, TaskResult]:
    """Return the first row of each task, in the order of the tasks."""
    first: dict[str, TaskResult] = {}
    for row in rows:
        first.setdefault(row.task, row)
    return first


def accuracy_cell(row: TaskResult | None, n: int | None = None) -> str:
    """The accuracy in per cent, with its 95 % interval, and the number of questions if it is not the heading's `n`."""
    if row is None or not row.n:
        return NOTHING
    low, high = row.interval
    interval = f" [{100 * low:.0f}, {100 * high:.0f}]" if isfinite(low) else ""  # too few images for an interval
    cell = f"{100 * row.accuracy:.1f}{interval}"
    return cell if n in (None, row.n) else f"{cell}, n = {row.n}"


def _counted(row: TaskResult | None) -> str:
    return f"{accuracy_cell(row)}, n = {row.n}" if row is not None and row.n else NOTHING


def first_answered(of_tasks: Mapping[str, TaskResult]) -> TaskResult:
    """Return the row to take a setup's visual tokens from: the first with answers."""
    first, *_ = of_tasks.values()
    return next((row for row in of_tasks.values() if row.n), first)


def each_task(groups: Iterable[Mapping[str, TaskResult]], cell: Callable[[TaskResult], str]) -> _Cell:
    """Return a function that formats a setup's visual tokens: the first task's, or each task's with its name if tasks
    differ in their unpruned visual tokens."""
    differ = any(len({f"{row.n_visual:.0f}" for row in group.values() if row.n}) > 1 for group in groups)

    def formatted(group: Mapping[str, TaskResult]) -> str:
        answered = [row for row in group.values() if row.n]
        if not differ or not answered:
            return cell(first_answered(group))
        return ", ".join(f"{task_title(row)} {cell(row)}" for row in answered)

    return formatted


def _n_mean(row: TaskResult) -> str:
    return f"{row.n_mean:.0f}"


def _share(row: TaskResult) -> str:
    return f"{row.n_mean:.0f} of {row.n_visual:.0f}"


def _cache(row: TaskResult) -> str:
    return f"{row.kv_cache_bytes / 1e6:.2f} MB" if row.kv_cache_bytes else NOTHING

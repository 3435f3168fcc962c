"""The result in one sentence: how few visual tokens surely lose little."""

from collections.abc import Mapping, Sequence

from tokenprune.evals.report.differences import difference_cell
from tokenprune.evals.report.tables import compared, task_title
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.results import TaskResult, answered_by_both, by_setup, compare

#: The loss in points that counts as little.
LITTLE = 5


def verdict(rows: Sequence[TaskResult]) -> str:
    """Return the sentence about the `rows` of one set; "" if no setup can be compared with the unpruned model.

    For each task, it names the setup with the fewest visual tokens a layer among those that lose at most LITTLE points
    by the paired 95 % interval; if there is none, the setup that loses least. An interval that reaches zero would prove
    nothing: with few questions, all do.
    """
    groups = by_setup(rows)
    keys = compared(groups)
    unpruned = next((groups[key] for key in keys if key.strategy == UNPRUNED), {})
    pruned = [groups[key] for key in keys if key.strategy != UNPRUNED]
    sentences = list(filter(None, (_of_task(task, whole, pruned) for task, whole in unpruned.items())))
    if not sentences:
        return ""
    begin = f"Fewest visual tokens that lose at most {LITTLE} points, 95 % interval included, on `{rows[0].dataset}`"
    return f"{begin}: {'; '.join(sentences)}."


def _of_task(task: str, whole: TaskResult, pruned: Sequence[Mapping[str, TaskResult]]) -> str:
    known = (group[task] for group in pruned if task in group)
    losses = [(row, compare(row, whole)) for row in known if answered_by_both(row, whole)]
    if not losses:
        return ""
    kept = [(row, loss) for row, loss in losses if 100 * loss.interval[0] >= -LITTLE]
    least = min(kept, key=lambda pair: (pair[0].n_mean, -pair[1].difference), default=None)
    row, loss = least or max(losses, key=lambda pair: pair[1].difference)
    name = f"{row.strategy} at {100 * row.keep_ratio:g} %"
    if row.position_ids != "original":
        name += f" with {row.position_ids} position IDs"
    what = f"{row.n_mean:.0f} of {row.n_visual:.0f} a layer, {difference_cell(loss)} points"
    told = f"{name} ({what})" if least else f"none of {len(losses)}, the closest being {name} ({what})"
    return f"{task_title(row)}, {told}"

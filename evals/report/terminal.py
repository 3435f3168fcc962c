"""The results as a table in the terminal: one line per setup, one column per task."""

from collections.abc import Sequence

from rich.filesize import decimal
from rich.table import Table

from tokenprune.evals.report.table import NOTHING
from tokenprune.evals.report.tables import (
    accuracy_cell,
    each_task,
    first_answered,
    further_metrics_table,
    setup_cells,
    task_title,
)
from tokenprune.evals.storage.results import TaskResult, by_setup


def table(rows: Sequence[TaskResult], title: str) -> Table:
    """Return the table of one data set. Brackets hold 95 % intervals."""
    first_of_task = {row.task: row for row in reversed(rows)}
    result = Table(title=title, caption=_caption(rows[0]), title_justify="left", caption_justify="left")
    for heading in ("strategy", "position IDs"):
        result.add_column(heading, no_wrap=True)
    for heading in ("keep ratio", "visual tokens", "KV cache"):
        result.add_column(heading, justify="right")
    for row in reversed(first_of_task.values()):
        result.add_column(f"{task_title(row)} {row.metric}\n(n = {row.n})", justify="right")
    result.add_column("unparsable", justify="right")
    failed = any(row.failed for row in rows)
    if failed:
        result.add_column("failed", justify="right")
    groups = by_setup(rows)
    tokens = each_task(groups.values(), lambda row: f"{row.n_mean:.4g} of {row.n_visual:.4g}")
    for key, of_task in groups.items():
        group, head = list(of_task.values()), first_answered(of_task)
        keep_ratio, strategy, position_ids = setup_cells(key, of_task)
        result.add_row(
            strategy,
            position_ids,
            keep_ratio,
            tokens(of_task),
            decimal(head.kv_cache_bytes) if head.kv_cache_bytes else NOTHING,
            *(accuracy_cell(row, first_of_task[row.task].n) for row in group),
            str(sum(row.unparsable for row in group)),
            *([str(sum(row.failed for row in group))] if failed else []),
        )
    return result


def further_metrics(rows: Sequence[TaskResult]) -> Table | None:
    """Return the table of all other metrics, in per cent, or None if there are none."""
    table = further_metrics_table(rows)
    if table is None:
        return None
    result = Table(title="Further metrics in per cent, and counts", title_justify="left")
    for heading in table.headings:
        result.add_column(heading)
    for line in table.lines:
        result.add_row(*line)
    return result


def _caption(row: TaskResult) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in row.versions.items())
    return (
        "accuracy in per cent, with 95 % interval; visual tokens that a decoder layer sees; KV cache after the prefill "
        f"of one question; {row.dtype} on {row.device}; {packages}"
    )

"""What an adapter gains: accuracy without and with it, as measured once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.report.table import Table
from tokenprune.evals.report.tables import accuracy_cell
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.results import TaskResult, by_setup, compare
from tokenprune.evals.storage.results_io import read

#: The name of the model with the adapter in the rows.
ADAPTED = "adapted"
HEAD = (
    "keep ratio",
    "task",
    "n",
    "without adapter",
    "with it",
    "difference",
    "with it, of unpruned without",
)


def stored(name: str = "adapted") -> str:
    """Return the table of a file of rows, given by its name without the ending."""
    return f"{table(read([RESULTS / f'{name}.jsonl']))}\n"


def trained(folder: Path = RESULTS) -> list[TaskResult]:
    """Return the rows of all adapted models that prune, with ", adapted" after the strategy's name."""
    return [
        replace(row, strategy=f"{row.strategy}, {ADAPTED}")
        for file in sorted(folder.glob("adapted_*.jsonl"))
        for row in read([file])
        if row.model == ADAPTED and row.strategy != UNPRUNED
    ]


def table(rows: Sequence[TaskResult]) -> Table:
    """Return one line per keep ratio and task. Differences are paired, and the last column is a share of what the
    unpruned model without the adapter gets right."""
    before, after = (by_setup([row for row in rows if (row.model == ADAPTED) == own]) for own in (False, True))
    whole = before[SetupKey("unpruned", "original", 1.0)]
    lines = []
    for key, tasks in before.items():
        for task, row in tasks.items():
            other = after[key][task]
            paired = compare(other, row)
            low, high = paired.interval
            lines.append(
                [
                    "unpruned" if key.strategy == "unpruned" else f"{key.keep_ratio:.0%}",
                    task.upper(),
                    str(row.n),
                    accuracy_cell(row),
                    accuracy_cell(other),
                    f"{100 * paired.difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
                    f"{other.accuracy / whole[task].accuracy:.0%}",
                ]
            )
    return Table(HEAD, lines)

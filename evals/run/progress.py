"""Output while questions are asked: messages, and a progress bar or lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

#: Seconds between the lines of a log.
EVERY = 60.0


class LoggedProgress(Progress):
    """Prints a line a minute if the console is not a terminal, where rich draws no bar before the end."""

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        super().__init__(*columns, console=console)
        self._is_drawn = console.is_terminal or console.is_jupyter
        self._said = time.monotonic()

    def advance(self, task_id: TaskID, advance: int | float = 1) -> None:
        super().advance(task_id, advance)
        if not self._is_drawn and time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            self.console.print(self._line(task_id), markup=False, highlight=False)

    def _line(self, task_id: TaskID) -> str:
        (task,) = (task for task in self.tasks if task.id == task_id)
        remaining = task.time_remaining
        left = "" if remaining is None else f", about {timedelta(seconds=round(remaining))} left"
        return f"{task.description}: {task.completed:.0f} of {task.total:.0f}{left}"


def progress_bar(console: Console) -> Progress:
    """Return a bar, still without a task, that shows the count, and the time elapsed and remaining."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return LoggedProgress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


def plain_printer(console: Console) -> Callable[[str], None]:
    """Return a function that prints text verbatim: paths and errors may have brackets, which rich takes for markup."""
    return partial(console.print, markup=False, emoji=False)

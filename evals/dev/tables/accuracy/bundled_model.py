"""Accuracy of the bundled model, which `make results` measures."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from tokenprune.evals.dev.tables import RESULTS
from tokenprune.evals.report import report
from tokenprune.evals.report.tables import summary_table
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage import results_io
from tokenprune.evals.storage.results import TaskResult

#: The strategy that the short table compares with the unpruned model.
SHOWN = "FoPru rank -2"


def makers() -> dict[str, Callable[[], str]]:
    return {
        "headline": lambda: headline(_rows(RESULTS)),
        "accuracy": lambda: report.summary(_rows(RESULTS)),
        "paired differences": lambda: report.differences(_rows(RESULTS)),
    }


def headline(rows: list[TaskResult]) -> str:
    """Return a line for the unpruned model and one for each keep ratio of SHOWN, on the bundled scenes."""
    return f"{summary_table([row for row in rows if row.scenes == 'scenes' and row.strategy in (UNPRUNED, SHOWN)])}\n"


@cache
def _rows(results: Path) -> list[TaskResult]:
    return results_io.read([*sorted(results.glob("bundled_model_*.jsonl")), results / "photographs.jsonl"])

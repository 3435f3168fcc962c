"""Every strategy of the main part compared with four others, question by question."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tokenprune.evals.dev.measure.plan import ORIGINAL
from tokenprune.evals.dev.tables.accuracy.differences import difference
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, NOTHING_MEASURED, ROWS, measured
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.run.setups import DOWNSAMPLE, UNPRUNED
from tokenprune.evals.storage.results import SetupKey, TaskResult, by_setup

#: What every strategy is compared with, in addition to the calibrated VFlowOpt.
REFERENCES = ("Random", "Grid", "VisionZip -2")
CALIBRATED = "VFlowOpt searched"


def stored(folder: Path = ROWS) -> str:
    """Return, for each task, every strategy's differences to REFERENCES and to the calibrated VFlowOpt."""
    rows = [row for row in measured(MAIN, folder).rows if row.position_ids in ORIGINAL]
    groups, parts = by_setup(rows), list[str]()
    head = ["keep ratio", "strategy", *(f"- {name}" for name in REFERENCES), "- calibrated VFlowOpt"]
    for task in dict.fromkeys(row.task for row in rows):
        if lines := list(_lines(groups, task)):
            parts += [f"{task.upper()}:", str(Table(head, lines))]
    return "\n\n".join(parts) + "\n" if parts else NOTHING_MEASURED


def _lines(groups: Mapping[SetupKey, Mapping[str, TaskResult]], task: str) -> Iterator[list[str]]:
    for key in sorted(groups, key=lambda key: -key.keep_ratio):
        names = (*REFERENCES, f"{CALIBRATED}_{100 * key.keep_ratio:g}")
        if key.strategy in (*names, DOWNSAMPLE, UNPRUNED):
            continue
        others = [groups.get(key._replace(strategy=name)) for name in names]
        cells = [NOTHING if other is None else difference(groups[key][task], other[task]) for other in others]
        yield [f"{100 * key.keep_ratio:g} %", key.strategy, *cells]

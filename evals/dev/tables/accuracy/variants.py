"""What changing one setting of a strategy does, on the questions of the main part."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tokenprune.evals.dev.measure.plan import VARIED
from tokenprune.evals.dev.tables.accuracy.differences import difference
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, NOTHING_MEASURED, ROWS, label, measured, percent
from tokenprune.evals.report import report
from tokenprune.evals.report.table import Table
from tokenprune.evals.report.tables import task_title
from tokenprune.evals.storage.results import SetupKey, TaskResult, by_setup

#: Each table: its subject, the setting that is changed, and the strategies.
CHANGES = (
    (
        "`cells`: the best tokens of each part of the image instead of the whole",
        "cells=auto",
        ("fopru:score=cls,layer=-2", "visionzip:layer=-2"),
    ),
    (
        '`attention_bias="size"`: a merged token is attended to as much as all the tokens that it stands for',
        "attention_bias=size",
        (
            "mosaic",
            "visionzip:layer=-2",
            "vflowopt",
            "nuwa:layer=-2",
            "prumerge:layer=-2",
            "averagepooling",
            "backgroundpruning:layer=-2",
        ),
    ),
    (
        '`features="projected"`: what the language model gets is compared, not what the tower returns',
        "features=projected",
        ("scope:layer=-2", "vispruner:layer=-2", "prunesid:layer=-2", "nuwa:layer=-2"),
    ),
    (
        '`schedule="decreasing"`: most tokens are merged in the first layers of the tower',
        "schedule=decreasing",
        ("tome",),
    ),
)


def changed(strategy: str, setting: str) -> str:
    """Return a strategy with one more setting, as `tokenprune eval` reads it."""
    return f"{strategy}{',' if ':' in strategy else ':'}{setting}"


def stored(folder: Path = ROWS) -> str:
    """Return one table per change: accuracy without and with it, and the paired difference."""
    rows = [*measured(VARIED, folder).rows, *measured(MAIN, folder).rows]
    groups, parts = by_setup(rows), list[str]()
    for change, setting, strategies in CHANGES:
        if lines := list(_lines(groups, setting, strategies)):
            titles = [task_title(row) for row in next(iter(groups.values())).values()]
            headings = [f"{title}{of}" for title in titles for of in ("", ", with it", ", difference")]
            parts += [f"{change}:", str(Table(["keep ratio", "strategy", *headings], lines))]
    if not parts:
        return NOTHING_MEASURED
    return "\n\n".join([*parts, *measured(VARIED, folder).notes, report.provenance(rows)]) + "\n"


def _lines(
    groups: Mapping[SetupKey, Mapping[str, TaskResult]], setting: str, strategies: Sequence[str]
) -> Iterator[list[str]]:
    for ratio in VARIED.ratios:
        for strategy in strategies:
            names = label(strategy), label(changed(strategy, setting))
            before, after = (groups.get(SetupKey(name, "original", ratio)) for name in names)
            if before and after:
                cells = [
                    (f"{100 * row.accuracy:.1f}", f"{100 * after[task].accuracy:.1f}", difference(after[task], row))
                    for task, row in before.items()
                ]
                yield [percent(ratio), names[0], *(cell for own in cells for cell in own)]

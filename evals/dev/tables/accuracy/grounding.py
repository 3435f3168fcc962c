"""What keeps grounding without calibration: rows of `tokenprune eval` on the bundled model."""

from collections.abc import Iterator, Mapping, Sequence

from tokenprune.evals.dev.tables import RESULTS
from tokenprune.evals.report.table import Table
from tokenprune.evals.report.tables import accuracy_table
from tokenprune.evals.storage.results import SetupKey, TaskResult, by_setup, compare
from tokenprune.evals.storage.results_io import read

#: A score in cells, and without.
CELLS = ("FoPru cls -2 auto", "FoPru cls -2"), ("VisionZip -2 auto", "VisionZip -2")
#: How the names of strategies with `attention_bias="size"` end.
SIZED = " size"
#: The best without calibration, which is compared with the calibrated one.
SIZED_BEST = f"Mosaic{SIZED}"
#: What every strategy is compared with, beside the calibrated VFlowOpt.
REFERENCES = ("Random", "Grid", "VisionZip -2")
CALIBRATED = "VFlowOpt searched"


def stored() -> str:
    return report(read([RESULTS / "grounding.jsonl"]))


def stored_against_references() -> str:
    return against_references(read([RESULTS / "grounding.jsonl"]))


def report(rows: Sequence[TaskResult]) -> str:
    """Return the accuracy of every setup, and paired differences: of Mosaic to the others, of a score in cells to the
    same score without, and of proportional attention to none."""
    groups = by_setup(rows)
    titles = list(dict.fromkeys(row.task.upper() for row in rows))
    parts = [
        "Accuracy in per cent, with 95 % interval:",
        accuracy_table(rows),
        "Differences on the same questions, in points, with 95 % interval and, for scores of 0 and 1, McNemar's p:",
        Table(["keep ratio", "first", "minus", *titles], list(_differences(groups))),
    ]
    parts += [
        '`attention_bias="size"` minus none, likewise:',
        Table(["keep ratio", "strategy", *titles], list(_with_sizes(groups))),
    ]
    return "\n\n".join(map(str, parts)) + "\n"


def against_references(rows: Sequence[TaskResult]) -> str:
    """Return, for each task, every strategy's differences to REFERENCES and to the calibrated VFlowOpt."""
    groups, parts = by_setup(rows), []
    head = ["keep ratio", "strategy", *(f"- {name}" for name in REFERENCES), "- calibrated VFlowOpt"]
    for task in dict.fromkeys(row.task for row in rows):
        lines = []
        for key in sorted(groups, key=lambda key: -key.keep_ratio):
            calibrated = f"{CALIBRATED}_{100 * key.keep_ratio:.0f}"
            if key.strategy in (*REFERENCES, calibrated):
                continue
            others = [groups[key._replace(strategy=name)][task] for name in (*REFERENCES, calibrated)]
            found = [difference(groups[key][task], other) for other in others]
            lines.append([f"{key.keep_ratio:.0%}", key.strategy, *found])
        parts += [f"{task.upper()}:", Table(head, lines)]
    return "\n\n".join(map(str, parts)) + "\n"


def _differences(groups: Mapping[SetupKey, Mapping[str, TaskResult]]) -> Iterator[list[str]]:
    for ratio in sorted({key.keep_ratio for key in groups}, reverse=True):
        names = [key.strategy for key in groups if key.keep_ratio == ratio and not key.strategy.endswith(SIZED)]
        pairs = [("Mosaic", name) for name in names if name != "Mosaic"]
        pairs += [pair for pair in CELLS if pair[0] in names]
        calibrated = f"{CALIBRATED}_{100 * ratio:.0f}"
        pairs += [(SIZED_BEST, calibrated)] if SetupKey(SIZED_BEST, "original", ratio) in groups else []
        for first, second in pairs:
            one, other = (groups[SetupKey(name, "original", ratio)] for name in (first, second))
            yield [f"{ratio:.0%}", first, second, *(difference(one[task], other[task]) for task in one)]


def _with_sizes(groups: Mapping[SetupKey, Mapping[str, TaskResult]]) -> Iterator[list[str]]:
    for key in sorted(groups, key=lambda key: -key.keep_ratio):
        if key.strategy.endswith(SIZED):
            name = key.strategy.removesuffix(SIZED)
            one, other = groups[key], groups[key._replace(strategy=name)]
            yield [f"{key.keep_ratio:.0%}", name, *(difference(one[task], other[task]) for task in one)]


def difference(row: TaskResult, other: TaskResult) -> str:
    """How much better a row is than another on the same questions, in points, with interval and p."""
    found = compare(row, other)
    low, high = found.interval
    p = "" if found.p is None else f", p = {found.p:.2g}"
    return f"{100 * found.difference:+.1f} [{100 * low:.1f}, {100 * high:.1f}]{p}"

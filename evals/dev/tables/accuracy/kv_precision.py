"""Keep ratios against the precision of the KV cache, as `dev.experiments.kv_precision` stored them."""

from collections.abc import Iterator, Mapping, Sequence

from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.dev.tables.accuracy.differences import difference
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.report.tables import accuracy_cell, task_title
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.results_io import read

ROWS = RESULTS / "kv_precision.jsonl"
#: Keep ratio times bits of caches that are compared with each other; that of the whole cache is 16.
DIAGONALS = (8.0, 4.0, 2.0, 1.0)

#: The rows of each task, by bits and by keep ratio, the highest first.
Grid = Mapping[int, Mapping[float, Mapping[str, TaskResult]]]


def stored() -> str:
    return report(read([ROWS]))


def grid_of(rows: Sequence[TaskResult]) -> Grid:
    """Arrange the rows of one strategy and of the unpruned model at several precisions."""
    found: dict[int, dict[float, dict[str, TaskResult]]] = {}
    for row in sorted(rows, key=lambda row: (-row.settings["kv_bits"], -row.keep_ratio)):
        found.setdefault(row.settings["kv_bits"], {}).setdefault(row.keep_ratio, {})[row.task] = row
    return found


def report(rows: Sequence[TaskResult]) -> str:
    """Return all accuracies, a comparison of caches of about the same size, and what each precision costs."""
    grid = grid_of(rows)
    tasks = {row.task: row for row in rows}
    titles = [f"{task_title(row)} {row.metric} (n = {row.n})" for row in tasks.values()]
    bits, ratios = list(grid), list(next(iter(grid.values())))
    sizes = [[f"{100 * ratio:g} %", *(_megabytes(grid[one][ratio]) for one in bits)] for ratio in ratios]
    parts: list[str | Table] = [
        "The prompt's KV cache in MB, with scales and the text's share:",
        Table(["keep ratio", *(f"{one} bits" for one in bits)], sizes),
    ]
    for task, title in zip(tasks, titles, strict=True):
        lines = [[f"{100 * ratio:g} %", *(accuracy_cell(grid[one][ratio][task]) for one in bits)] for ratio in ratios]
        parts += [f"{title}, in per cent, with 95 % interval:", Table(["keep ratio", *map(_named, bits)], lines)]
    names = [task_title(row) for row in tasks.values()]
    parts += [
        "Caches of about one size: accuracy in per cent, and the paired difference to the fewest tokens at the highest "
        "precision, in points, with 95 % interval and McNemar's p:",
        Table(
            [
                "share",
                "keep ratio",
                "precision",
                "KV cache",
                *(c for name in names for c in (name, f"{name}, difference")),
            ],
            list(_diagonals(grid, list(tasks))),
        ),
        "Each precision minus 16 bits at the same keep ratio, in points, with 95 % interval and McNemar's p:",
        Table(["keep ratio", "precision", *names], list(_losses(grid, list(tasks)))),
    ]
    return "\n\n".join(map(str, parts)) + "\n"


def _diagonals(grid: Grid, tasks: Sequence[str]) -> Iterator[list[str]]:
    for size in DIAGONALS:
        first = None
        for bits, by_ratio in grid.items():
            own = by_ratio.get(size / bits)
            if own is None:
                continue
            head = f"1/{16 / size:g}" if first is None else ""
            line = [head, f"{100 * size / bits:g} %", _named(bits), f"{_megabytes(own)} MB"]
            for task in tasks:
                line += [accuracy_cell(own[task]), NOTHING if first is None else difference(own[task], first[task])]
            first = first or own
            yield line


def _losses(grid: Grid, tasks: Sequence[str]) -> Iterator[list[str]]:
    whole, *others = grid
    for ratio, full in grid[whole].items():
        for bits in others:
            cells = (difference(grid[bits][ratio][task], full[task]) for task in tasks)
            yield [f"{100 * ratio:g} %", _named(bits), *cells]


def _named(bits: int) -> str:
    return f"{bits} bits"


def _megabytes(of_tasks: Mapping[str, TaskResult]) -> str:
    return f"{next(iter(of_tasks.values())).kv_cache_bytes / 1e6:.2f}"

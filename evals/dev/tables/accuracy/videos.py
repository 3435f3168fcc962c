"""Accuracy of strategies on the bundled clips."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.dev.tables.accuracy.differences import difference
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.report.tables import BASELINE, accuracy_cell
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.results_io import read

#: The kinds of questions, in the order of the columns. "when": about the object that is there for one second. "where":
#: about the one that is always there and moves. "absent": about one that is not there.
KINDS = ("when", "where", "what", "absent")
#: What is asked in turn about a clip with one object, and about the next one, which has two.
ASKED = ("where", "absent", "what"), ("when", "absent", "where")
MB = 1e6


def stored() -> str:
    """Return the accuracy of every setup on all questions and on each kind, and paired differences."""
    rows = sorted(map(by_kind, read([RESULTS / "videos" / "accuracy.jsonl"])), key=lambda row: -row.keep_ratio)
    return (
        f"Accuracy in per cent, with 95 % interval:\n\n{accuracy_table(rows)}\n\nDifferences on the same questions, in "
        f"points, with 95 % interval and McNemar's p:\n\n{difference_table(rows)}\n"
    )


def kind_of(number: int) -> str:
    """Return what a question asks about, by its number in the set."""
    own = ASKED[number // len(ASKED[0]) % len(ASKED)]
    return own[number % len(own)]


def by_kind(row: TaskResult) -> TaskResult:
    """Return a result on the bundled clips with the kinds of questions as splits."""
    (scores,), (images,) = row.scores.values(), row.images.values()
    kinds = [kind_of(number) for number in range(len(scores))]

    def parts(values: list[Any]) -> dict[str, list[Any]]:
        return {kind: [value for value, own in zip(values, kinds, strict=True) if own == kind] for kind in KINDS}

    return replace(row, scores=parts(scores), images=parts(images))


def accuracy_table(rows: Sequence[TaskResult]) -> Table:
    kinds = [f"{kind} (n = {rows[0].of_split(kind).n})" for kind in KINDS]
    headings = ["keep ratio", "strategy", "visual tokens", "KV cache", f"all (n = {rows[0].n})", *kinds]
    lines = [
        [
            f"{row.keep_ratio:.0%}",
            row.strategy,
            f"{row.n_kept:.0f}",
            f"{row.kv_cache_bytes / MB:.2f} MB",
            *(accuracy_cell(part) for part in (row, *map(row.of_split, KINDS))),
        ]
        for row in rows
    ]
    return Table(headings, lines)


def difference_table(rows: Sequence[TaskResult]) -> Table:
    """Return what every strategy loses against the unpruned model, and gains over random tokens: on all questions, and
    on those about objects that are there for only one second."""
    (whole,) = (row for row in rows if row.strategy == UNPRUNED)
    lines = []
    for row in rows:
        if row.strategy == UNPRUNED:
            continue
        (random,) = (other for other in rows if (other.strategy, other.keep_ratio) == (BASELINE, row.keep_ratio))
        compared = [difference(row, whole)]
        compared += [NOTHING] * 2 if row is random else [difference(*pair) for pair in _pairs(row, random)]
        lines.append([f"{row.keep_ratio:.0%}", row.strategy, *compared])
    return Table(
        ["keep ratio", "strategy", f"strategy - {UNPRUNED}", f"strategy - {BASELINE}", f"strategy - {BASELINE}, when"],
        lines,
    )


def _pairs(row: TaskResult, other: TaskResult) -> Iterator[tuple[TaskResult, TaskResult]]:
    yield row, other
    yield row.of_split("when"), other.of_split("when")

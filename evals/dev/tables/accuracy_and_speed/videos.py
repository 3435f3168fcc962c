"""Strategies on videos: accuracy on the bundled clips, time and memory of a prefill, and of selection alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from tokenprune.evals.dev.clips import kind_of
from tokenprune.evals.dev.stored import RESULTS, json_lines
from tokenprune.evals.dev.tables.accuracy.differences import difference
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.report.tables import BASELINE, accuracy_cell
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.results_io import read

VIDEOS = RESULTS / "videos"
#: The kinds of questions, in the order of the columns.
KINDS = ("when", "where", "what", "absent")
MB = 1e6


def accuracy() -> str:
    """Return the accuracy of every setup on all questions and on each kind, and paired differences."""
    rows = sorted(map(by_kind, read([VIDEOS / "accuracy.jsonl"])), key=lambda row: -row.keep_ratio)
    return (
        f"Accuracy in per cent, with 95 % interval:\n\n{accuracy_table(rows)}\n\nDifferences on the same questions, in "
        f"points, with 95 % interval and McNemar's p:\n\n{difference_table(rows)}\n"
    )


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
        (random,) = (one for one in rows if (one.strategy, one.keep_ratio) == (BASELINE, row.keep_ratio))
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


def prefill() -> str:
    return f"{prefill_table(json_lines(VIDEOS / 'prefill.jsonl'))}\n"


def prefill_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the time and memory of whole prefills, relative to the unpruned model and to the ideal of the same
    ratio."""
    named = {(row["frames"], row["keep_ratio"], row["strategy"]): row for row in rows}
    lines = []
    for row in rows:
        frames, ratio, seconds = row["frames"], row["keep_ratio"], row["seconds"]
        whole, ideal = named[frames, 1.0, UNPRUNED], named.get((frames, ratio, "ideal"))
        spread = f"{median(seconds):.2f} ({min(seconds):.2f}, {max(seconds):.2f})"
        shares = [_ratio(row, whole), NOTHING if ideal is None else _ratio(row, ideal)]
        peak = [f"{row['peak_bytes'] / MB:.0f} MB", f"{row['peak_bytes'] / whole['peak_bytes']:.2f}"]
        lines.append([str(frames), f"{ratio:.0%}", row["strategy"], spread, *shares, *peak])
    spread, share = "seconds (least, most)", "to unpruned"
    return Table(["frames", "keep ratio", "", spread, share, "to the ideal", "peak memory", share], lines)


def _ratio(row: dict[str, Any], other: dict[str, Any]) -> str:
    return f"{median(row['seconds']) / median(other['seconds']):.2f}"


def growth() -> str:
    rows = json_lines(VIDEOS / "growth.jsonl")
    return (
        f"Milliseconds a frame, of a whole prefill:\n\n{growth_table(rows, _milliseconds)}\n\nPeak memory in MB:\n\n"
        f"{growth_table(rows, _peak)}\n"
    )


def selection() -> str:
    rows = json_lines(VIDEOS / "selection.jsonl")
    size = rows[0]["given_bytes"] / rows[0]["frames"]
    return (
        f"CPU milliseconds a frame:\n\n{growth_table(rows, _milliseconds)}\n\nPeak memory in MB, beside the "
        f"{size / MB:.2f} MB a frame of the video's features:\n\n{growth_table(rows, _peak)}\n"
    )


def growth_table(rows: Sequence[dict[str, Any]], cell: Callable[[dict[str, Any]], str]) -> Table:
    """Return one line per strategy and keep ratio, and one column per number of frames."""
    frames = sorted({row["frames"] for row in rows})
    found = {(row["strategy"], row["keep_ratio"], row["frames"]): cell(row) for row in rows}
    setups = sorted(dict.fromkeys((row["strategy"], row["keep_ratio"]) for row in rows))
    lines = [[name, f"{ratio:.0%}", *(found.get((name, ratio, n), NOTHING) for n in frames)] for name, ratio in setups]
    return Table(["strategy", "keep ratio", *(f"{n} frames" for n in frames)], lines)


def _milliseconds(row: dict[str, Any]) -> str:
    return f"{1000 * median(row['seconds']) / row['frames']:.2f}"


def _peak(row: dict[str, Any]) -> str:
    return f"{row['peak_bytes'] / MB:.1f}"

"""Coarse to fine on needles, as `dev.experiments.needles.ask` stored it in parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenprune.evals.dev.stored import RESULTS, versions
from tokenprune.evals.dev.tables.accuracy.needle_answers import Answer, read
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.stats import interval, paired
from tokenprune.evals.storage.identity import check_same

STORED = RESULTS / "zoom_0.jsonl", RESULTS / "zoom_1.jsonl"
BASELINES = ("thumbnail", "coarsest", "random")
ORDER = ("thumbnail", "coarsest", "random", "zoom", "exhaustive", "best tile")


def report(header: dict[str, Any], answers: Sequence[Answer]) -> str:
    """Return all tables. Leaves out questions that some way other than `exhaustive` and `best tile` has yet to
    answer."""
    complete = whole(answers)
    n = {task: len({a.id for a in complete if (a.task == "rec") == (task == "REC")}) for task in ("REC", "VQA")}
    images = len({answer.image for answer in complete})
    parts = [
        f"{n['REC'] + n['VQA']} questions (REC {n['REC']}, VQA {n['VQA']}) on {images} images; {header['model']}, "
        f"{header['dtype']} on {header['device']}; {versions(header)}. Per cent, with 95 % interval over images:",
        accuracies(complete),
        "Zoom against the others on the same questions, in points, with 95 % interval:",
        differences(complete),
        "REC: how often a tile that holds the needle's middle was among those examined, of the questions for which the "
        "level was examined (level 0 is always seen whole), and how often the view answered from holds it:",
        recall(complete),
    ]
    return "\n\n".join(map(str, parts)) + "\n"


def whole(answers: Sequence[Answer]) -> list[Answer]:
    """Return the answers to questions answered in every needed way."""
    needed = {answer.way for answer in answers} & {*BASELINES, "zoom"}
    asked: dict[str, set[str]] = {}
    for answer in answers:
        asked.setdefault(answer.id, set()).add(answer.way)
    return [answer for answer in answers if needed <= asked[answer.id]]


def accuracies(answers: Sequence[Answer]) -> Table:
    """Return the accuracy by needle size, and the cost of an answer as a share of encoding everything."""
    splits = _splits(answers)
    lines = []
    for way in _ways(answers):
        own = [answer for answer in answers if answer.way == way]
        rec, vqa = _by_task(own)
        shares = [_share(own, "n_visual", "n_all"), _share(own, "flops", "flops_all")]
        lines.append([way, *shares, *(_mean(group, _scores(group)) for group in (*_by_split(rec, splits), vqa))])
    sizes = [f"REC, {split}" for split in splits]
    return Table(["way", "tokens", "FLOPs", *sizes, "REC, all", "VQA: is there a ...?"], lines)


def differences(answers: Sequence[Answer]) -> Table:
    splits = _splits(answers)
    zoom = {answer.id: answer for answer in answers if answer.way == "zoom"}
    lines = []
    for way in BASELINES:
        rec, vqa = _by_task([answer for answer in answers if answer.way == way])
        groups = [*_by_split(rec, splits), vqa]
        lines.append([f"zoom - {way}", *(_difference([zoom[a.id] for a in group], group) for group in groups)])
    return Table(["", *(f"REC, {split}" for split in splits), "REC, all", "VQA"], lines)


def recall(answers: Sequence[Answer]) -> Table:
    splits = _splits(answers)
    lines = []
    for way in _ways(answers):
        own = [answer for answer in answers if answer.way == way and answer.found is not None]
        for number in range(max((len(answer.reached) for answer in own), default=0)):
            deep = [answer for answer in own if len(answer.reached) > number]
            cells = (_mean(group, [float(a.reached[number]) for a in group]) for group in _by_split(deep, splits))
            lines.append([way, f"examined, level {number + 1}", *cells])
        if own:
            cells = (_mean(group, [float(bool(a.found)) for a in group]) for group in _by_split(own, splits))
            lines.append([way, "answered from", *cells])
    return Table(["way", "view", *splits, "all"], lines)


def _ways(answers: Sequence[Answer]) -> list[str]:
    return [way for way in ORDER if any(answer.way == way for answer in answers)]


def _splits(answers: Sequence[Answer]) -> list[str]:
    return sorted({answer.split for answer in answers}, key=lambda split: int(split.split("-")[0]))


def _by_split(answers: Sequence[Answer], splits: Sequence[str]) -> list[list[Answer]]:
    """Return the answers of each split, followed by all answers."""
    return [*([answer for answer in answers if answer.split == split] for split in splits), list(answers)]


def _by_task(answers: Sequence[Answer]) -> tuple[list[Answer], list[Answer]]:
    return [a for a in answers if a.task == "rec"], [a for a in answers if a.task != "rec"]


def _scores(answers: Sequence[Answer]) -> list[float]:
    return [answer.score for answer in answers]


def _images(answers: Sequence[Answer]) -> list[int]:
    numbers = {name: number for number, name in enumerate(sorted({answer.image for answer in answers}))}
    return [numbers[answer.image] for answer in answers]


def _share(answers: Sequence[Answer], part: str, everything: str) -> str:
    total = sum(getattr(answer, everything) for answer in answers)
    return f"{100 * sum(getattr(answer, part) for answer in answers) / total:.1f} %"


def _mean(answers: Sequence[Answer], scores: Sequence[float]) -> str:
    if not scores:
        return NOTHING
    low, high = interval(scores, _images(answers))
    return f"{100 * sum(scores) / len(scores):.0f} [{100 * low:.0f}, {100 * high:.0f}], n = {len(scores)}"


def _difference(own: Sequence[Answer], other: Sequence[Answer]) -> str:
    if not own:
        return NOTHING
    found = paired(_scores(own), _scores(other), _images(own))
    low, high = found.interval
    return f"{100 * found.difference:+.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def stored(files: Sequence[Path] = STORED) -> str:
    """Return the tables for files that are parts of one run."""
    headers, parts = zip(*map(read, files), strict=True)
    for file, header in zip(files, headers, strict=True):
        check_same(header, headers[0], f"{file} was begun", "Only parts of one run can be put together.")
    return report(headers[0], [answer for part in parts for answer in part])

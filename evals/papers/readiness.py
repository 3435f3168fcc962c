"""What a run of a protocol needs, and how long it takes: everything that can be checked before weights are loaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import psutil
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from rich.filesize import decimal

from tokenprune.errors import TokenPruneError
from tokenprune.evals.papers.measuring import PaperRun
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.storage.run_folder import RunFolder

#: Bytes on disk of one answer with the bits of its kept tokens, generously.
ANSWER = 2_000
WEIGHTS = ("*.safetensors", "*.bin")


def weights(model: str) -> int | None:
    """Return the bytes of a model's weights on this machine; None if they were not downloaded."""
    try:
        folder = Path(model) if Path(model).is_dir() else Path(snapshot_download(model, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return sum(path.stat().st_size for pattern in WEIGHTS for path in folder.glob(pattern)) or None


def memory() -> int:
    """Return the bytes of memory of the device that a model would be loaded to."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return psutil.virtual_memory().total


def answers_table(run: PaperRun) -> tuple[Table, int, float | None]:
    """Return a line for each set with its answers, those already stored and the time of the rest; and of all sets, the
    answers to ask and their seconds. The time is that of the stored answers, None if there are none."""
    n_setups, lines, n_left = 1 + len(run.setups()), [], 0
    seconds: float | None = 0.0
    for task, split in run.sets:
        stored = [
            answer
            for group in (None, *run.groups)
            for answer in RunFolder(run.folder(task, split, group)).answers().values()
            if answer.error is None
        ]
        try:
            n = n_setups * len(run.questions(task, split))
        except TokenPruneError:
            lines.append([task, split or NOTHING, "missing", NOTHING, NOTHING])
            seconds = None
            continue
        each = fmean(answer.seconds for answer in stored) if stored else None
        time = None if each is None else each * (n - len(stored))
        n_left += n - len(stored)
        seconds = None if seconds is None or time is None else seconds + time
        lines.append([task, split or NOTHING, f"{n:,}", f"{len(stored):,}", _hours(time)])
    return Table(["set", "split", "answers", "stored", "time left"], lines), n_left, seconds


def missing(run: PaperRun, n_left: int) -> Iterator[str]:
    """Yield a sentence for everything that a run lacks, with what to type or read to get it."""
    size = weights(run.model)
    if size is None:
        yield f"{run.model} is not on this machine: hf download {run.model}"
    elif size > memory():
        yield f"{run.model} has {decimal(size)} of weights, and the device {decimal(memory())} of memory"
    for problem in run.problems(with_model=size is not None):
        where = " (where sets come from: `tokenprune sets`)" if str(run.data) in problem else ""
        yield problem.rstrip(".") + where
    place = next(path for path in (run.output, *run.output.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < ANSWER * n_left:
        yield f"{run.output} has room for {decimal(free)}, and {n_left:,} answers take about {decimal(ANSWER * n_left)}"


def _hours(seconds: float | None) -> str:
    return NOTHING if seconds is None else f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def told(run: PaperRun) -> tuple[str, bool]:
    """Return what to print of a run that is not started, and whether it can be started."""
    try:
        table, n_left, seconds = answers_table(run)
    except TokenPruneError:  # of a strategy, which is among the problems
        table, n_left, seconds = None, 0, None
    problems = list(missing(run, n_left))
    size = weights(run.model)
    parts = [str(table)] if table is not None else []
    parts.append(
        f"{n_left:,} answers to ask, about {_hours(seconds)}"
        if seconds is not None
        else f"{n_left:,} answers to ask; a run with --limit 20 --output {run.output} tells how long they take"
    )
    if size is not None:
        parts.append(f"{decimal(size)} of weights; {decimal(memory())} of memory; {decimal(ANSWER * n_left)} on disk")
    parts += [f"Missing: {problem}" for problem in problems] or ["Nothing is missing."]
    return "\n\n".join(parts), not problems

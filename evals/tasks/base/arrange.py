"""Arrange a downloaded snapshot of a repository on the Hub into the folder that its task reads."""

import io
import os
import shutil
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenprune.errors import DataError, SettingError
from tokenprune.evals.reading.hub import check_complete
from tokenprune.evals.tasks.base.published import Snapshot
from tokenprune.evals.tasks.base.task import Task

PAGE = "evals/tasks/sets.md"


def arrange(task: Task, snapshot: Path, folder: Path) -> Counter[str]:
    """Fill `folder` with the task's files from `snapshot`, and return the number of questions in each split.

    Files are linked, or copied where they cannot be; archives are extracted. What is there already is replaced, so an
    interrupted call can be repeated. SettingError if the task has no known repository; DataError, which names the file
    and what to do, if a file is missing, truncated, or not as published.
    """
    known = task.published.hub if task.published else ()
    if not known:
        raise SettingError(f"task {task.name!r} has no known repository on the Hub. {PAGE} says which files it reads")
    if not snapshot.is_dir():
        raise DataError(f"{snapshot}: no such folder; type `{known[0].download}`")
    found, files = _find(known, snapshot)
    check_complete(files)
    for file in files:
        _link(file, folder / file.relative_to(snapshot))
    for pattern, place in found.archives.items():
        archives = sorted(snapshot.glob(pattern))
        if not archives:
            raise DataError(f"{snapshot}: no {pattern} of {found.repository}; type `{found.download}`")
        (folder / place).mkdir(parents=True, exist_ok=True)
        _extract(archives, folder / place)
    return Counter(question.split for question in task.load(folder))


def _find(known: Sequence[Snapshot], snapshot: Path) -> tuple[Snapshot, list[Path]]:
    """Return which repository this is, and its files for the task; a split may have been left out of the download."""
    for candidate in known:
        if files := [path for pattern in candidate.files for path in sorted(snapshot.glob(pattern))]:
            return candidate, files
    needed = " nor ".join(f"{' or '.join(source.files)} of {source.repository}" for source in known)
    raise DataError(f"{snapshot}: no {needed}; type `{known[0].download}`")


def _link(file: Path, place: Path) -> None:
    real = file.resolve()  # the Hub's cache holds symbolic links
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and place.samefile(real):
        return
    place.unlink(missing_ok=True)
    try:
        os.link(real, place)
    except OSError:  # another file system, or one without links
        shutil.copy2(real, place)


def _extract(archives: Sequence[Path], place: Path) -> None:
    name = f"{archives[0]}" if len(archives) == 1 else f"{archives[0]} to {archives[-1].name}"
    try:
        if ".tar" in archives[0].name:
            with tarfile.open(fileobj=io.BufferedReader(_Joined(archives)), mode="r|") as tar:
                tar.extractall(place, filter="data")
            return
        for archive in archives:
            name = str(archive)
            with zipfile.ZipFile(archive) as content:
                content.extractall(place)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: not a complete archive ({error}); download it again") from error


class _Joined(io.RawIOBase):
    """The parts of a file, read as one."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._blocks, self._block = self._read(parts), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._block = self._block or memoryview(next(self._blocks, b""))
        size = min(len(buffer), len(self._block))
        buffer[:size], self._block = self._block[:size], self._block[size:]
        return size

    @staticmethod
    def _read(parts: Sequence[Path]) -> Iterator[bytes]:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    yield block

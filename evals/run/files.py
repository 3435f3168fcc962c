"""Files that outlive a process which is killed at any moment."""

import fcntl
import os
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tokenprune.errors import SettingError


@contextmanager
def held(path: Path, doing: str) -> Iterator[BinaryIO]:
    """Give a file of lines to append to, its unfinished last line cut off, and keep every other process off it.

    `doing` says in the error who else may hold it: "another search is writing it". A killed process holds nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingError(f"{path}: {doing}. Wait, or name another output.") from error
        _cut_unfinished_line(file)
        yield file


def append(file: BinaryIO, text: str) -> None:
    """Add whole lines that are on the disk when this returns."""
    file.write(text.encode())
    file.flush()
    os.fsync(file.fileno())


def replace(path: Path, text: str) -> None:
    """Write all of a file or nothing."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def check_same(found: Mapping[str, Any], now: Mapping[str, Any], holds: str, instead: str) -> None:
    """Raise SettingError that names what differs between the values that a file was begun with and those of `now`."""
    changed = [name for name in {**found, **now} if found.get(name) != now.get(name)]
    if changed:
        was, is_now = (", ".join(f"{name}={_short.repr(of.get(name))}" for name in changed) for of in (found, now))
        raise SettingError(f"{holds}, with {was} and not {is_now}. {instead}")


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def _cut_unfinished_line(file: BinaryIO) -> None:
    """A process that dies while it writes leaves half a line, which the next one would be glued to."""
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        file.truncate(whole)

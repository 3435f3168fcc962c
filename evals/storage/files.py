"""Write files so that a process killed at any moment leaves them readable."""

import errno
import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from tokenprune.errors import DataError, SettingError, UnsupportedError
from tokenprune.evals.reading.fields import as_object
from tokenprune.evals.reading.text import parse_json, read_text

#: Full, over quota, too large a file, broken, read-only. Others, such as a broken pipe, are of something else.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}

#: Differences that an error names; a run of many setups may have hundreds.
LISTED = 3
#: What differs where a digest does, by the last part of its name. `{}` is the part before it, such as a task.
DIGESTS = {
    "weights": "other weights of the model",
    "processor": "other settings of its processor",
    "class": "other code of the strategy",
    "digest": "other {} questions, right answers, images or frames",
    "images": "{} questions about other images",
}
#: A digest, which says nothing to a reader.
_DIGEST = re.compile("[0-9a-f]{16,}")


def check_folder(path: Path, option: str = "--output") -> None:
    """Raise SettingError, naming the path, unless files can be written into a folder, which need not exist yet.

    To be called before anything that takes long. option: where the path was given.
    """
    there = next(one for one in (path.absolute(), *path.absolute().parents) if os.path.lexists(one))
    if not os.path.isdir(there):
        where = "it is a file" if there == path.absolute() else f"{there} is a file"
        raise SettingError(f"{path}: cannot be a folder, because {where}. Name another {option}.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SettingError(
            f"{path}: cannot be written, because {there} is read-only for you. Change its permissions, or name another "
            f"{option}."
        )


def check_file(path: Path, option: str = "--output") -> None:
    """Raise SettingError, naming the path, unless a file can be written there. Its folder need not exist yet."""
    if os.path.isdir(path):
        raise SettingError(f"{path}: is a folder; name a file in it with {option}.")
    check_folder(path.parent, option)
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise SettingError(
            f"{path}: cannot be written, because it is read-only for you. Change its permissions, or name another "
            f"{option}."
        )


@contextmanager
def lock_for_appending(path: Path, doing: str) -> Iterator[FileIO]:
    """Open a file of lines to append to, lock out other processes, and cut off an unfinished last line.

    doing: what the holder of the lock does, for the error: "another search is writing it". A killed process holds no
        lock. UnsupportedError on Windows and on file systems that have no such locks.
    """
    try:
        import fcntl
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"{path}: file locks need a POSIX system (Linux or macOS). On Windows, run this under WSL."
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:  # a buffer would be written again after an error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingError(f"{path}: {doing}. Wait until it is done, or name another --output.") from error
        except OSError as error:  # as on some file systems of clusters
            raise UnsupportedError(
                f"{path}: cannot be locked ({error.strerror}). Name an --output on another file system, such as a "
                "local disk."
            ) from error
        with naming(path):
            _cut_unfinished_line(file)
        yield file


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Raise DataError, naming `path`, for an error of the disk, such as a full one: the system names no file then."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in DISK_ERRORS:
            raise
        raise DataError(
            f"{path}: cannot be written: {error.strerror or error}. Make room and repeat the command; what is complete "
            "is kept"
        ) from error


def append(file: FileIO, text: str) -> None:
    """Append whole lines, which are on disk when this returns."""
    content = text.encode()
    with naming(file.name):
        while content:
            content = content[file.write(content) :]
        os.fsync(file.fileno())


def replace(path: Path, text: str) -> None:
    """Replace a file's content in one step: a killed process leaves the old content or the new."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    with naming(path):
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)


def check_same(
    found: Mapping[str, Any], now: Mapping[str, Any], holds: str, instead: str, words: Mapping[str, str] | None = None
) -> None:
    """Raise SettingError if the values that a file was started with differ from those of `now`.

    Values within objects are compared one by one: {"model": {"dtype": ...}} has the name `model.dtype`.

    holds, instead: the beginning and the end of the message, which lists the first few differences in between.
    words: what differs where a digest does, by its name, if DIGESTS does not say it: "other sources". Digests
        themselves are not shown.
    """
    found, now = _flat(found), _flat(now)
    changed = [name for name in {**found, **now} if found.get(name) != now.get(name)]
    if changed:
        listed, more = changed[:LISTED], len(changed) - LISTED
        digests = [name for name in listed if _is_digest(found.get(name)) or _is_digest(now.get(name))]
        shown = [name for name in listed if name not in digests]
        was, is_now = (", ".join(f"{name}={_short.repr(of.get(name))}" for name in shown) for of in (found, now))
        told = [f"with {was} and not {is_now}"] if shown else []
        told += [f"with {(words or {}).get(name) or _in_words(name)}" for name in digests]
        others = f", and {more} more" if more > 0 else ""
        raise SettingError(f"{holds}, {', '.join(told)}{others}. {instead}")


def begin(path: Path, identity: Mapping[str, Any], what: str) -> None:
    """Write what identifies the work in a folder, or raise SettingError if `what` is there ("another training")."""
    now = json.loads(json.dumps(identity))
    if path.is_file():
        instead = "Name another output, or delete its folder."
        found = as_object(parse_json(read_text(path), str(path), f". {instead}"), str(path))
        check_same(found, now, f"{path}: holds {what}", instead)
    else:
        replace(path, json.dumps(now, indent=1) + "\n")


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _in_words(name: str) -> str:
    """Say what differs where the digest with this name does."""
    owner, _, last = name.rpartition(".")
    return DIGESTS[last].format(owner.rpartition(".")[2]) if last in DIGESTS else f"another {name}"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def _cut_unfinished_line(file: FileIO) -> None:
    """Remove the half line that a process killed while writing leaves, so that the next line stands alone."""
    file.seek(0)
    content = file.read()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        file.truncate(end)

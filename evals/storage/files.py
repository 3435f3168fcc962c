"""Write files so that a process killed at any moment leaves them readable."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from tokenprune.errors import DataError, SettingError, UnsupportedError

#: Disk full, over quota, file too large, I/O error, read-only. Others, such as a broken pipe, are not the disk's.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


def check_folder(path: Path, option: str = "--output") -> None:
    """Raise SettingError, naming the path, unless files can be written into a folder, which need not exist yet.

    Call it before anything slow. option: where the path was given.
    """
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if os.path.lexists(parent))
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
        except OSError as error:  # as on some cluster file systems
            raise UnsupportedError(
                f"{path}: cannot be locked ({error.strerror}). Name an --output on another file system, such as a "
                "local disk."
            ) from error
        with naming(path):
            _cut_unfinished_line(file)
        yield file


@contextmanager
def naming(path: object) -> Iterator[None]:
    """Raise DataError, naming `path`, for a disk error, such as a full disk, for which the system names no file."""
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
    """Append whole lines; they are on disk when this returns."""
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


def _cut_unfinished_line(file: FileIO) -> None:
    """Remove the partial line that a process killed while writing leaves, so that the next line stands alone."""
    file.seek(0)
    content = file.read()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        file.truncate(end)

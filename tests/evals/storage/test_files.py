"""Files that stay readable if the process is killed."""

import errno
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tokenprune.errors import DataError, SettingError, UnsupportedError
from tokenprune.evals.storage import files
from tokenprune.evals.storage.files import (
    append,
    check_file,
    check_folder,
    lock_for_appending,
    naming,
    replace,
)


def test_an_unfinished_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines"
    with lock_for_appending(path, "another run is writing it") as file:
        append(file, "one\ntw")
    with lock_for_appending(path, "another run is writing it") as file:
        append(file, "two\n")
    assert path.read_text() == "one\ntwo\n"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    lock = partial(lock_for_appending, tmp_path / "lines", "another run is writing it")
    with lock(), pytest.raises(SettingError, match=r"lines: another run is writing it\. Wait"):
        lock().__enter__()


def test_locks_need_a_posix_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with pytest.raises(UnsupportedError, match="POSIX system"):
        lock_for_appending(tmp_path / "lines", "another run is writing it").__enter__()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(UnsupportedError, match=r"lines: cannot be locked \(No locks available\)\. Name an --output"):
        lock_for_appending(tmp_path / "lines", "another run is writing it").__enter__()


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    replace(tmp_path / "run.json", "old")
    replace(tmp_path / "run.json", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_by_whoever_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        open("/dev/full", "ab", buffering=0) as file,
        pytest.raises(DataError, match=r"/dev/full: cannot be written: No space left on device\. Make room"),
    ):
        append(file, "one\n")
    monkeypatch.setattr(files, "_cut_unfinished_line", full)
    with pytest.raises(DataError, match="lines: cannot be written: No space left"):
        lock_for_appending(tmp_path / "lines", "another run is writing it").__enter__()


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError("image file is truncated")])
@pytest.mark.parametrize("guard", [naming, partial(lock_for_appending, doing="another run is writing it")])
def test_other_errors_while_a_file_is_written_are_not_the_files(tmp_path: Path, guard: Any, error: OSError) -> None:
    with pytest.raises(type(error)) as caught, guard(tmp_path / "lines"):
        raise error
    assert caught.value is error


def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_folder(tmp_path / "new" / "run")
    check_file(tmp_path / "new" / "a.json")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    check_file(tmp_path / "file")
    with pytest.raises(SettingError, match=r"file: cannot be a folder, because it is a file\. Name another --output"):
        check_folder(tmp_path / "file")
    with pytest.raises(SettingError, match=r"a/b: cannot be a folder, because .*/file is a file\. Name another --html"):
        check_folder(tmp_path / "file" / "a" / "b", "--html")
    with pytest.raises(SettingError, match=r": is a folder; name a file in it with --gif\."):
        check_file(tmp_path, "--gif")
    monkeypatch.setattr("os.access", lambda *_: False)  # permission bits do not bind root
    for check, path in ((check_folder, tmp_path / "new"), (check_file, tmp_path / "file")):
        with pytest.raises(SettingError, match=r"cannot be written, because .* read-only for you\. Change its perm"):
            check(path)

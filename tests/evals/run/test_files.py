"""Files that a killed process leaves readable."""

import sys
from functools import partial
from pathlib import Path

import pytest

from tokenprune import SettingError, UnsupportedError
from tokenprune.evals.run.files import append, check_same, lock_for_appending, replace


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


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    replace(tmp_path / "run.json", "old")
    replace(tmp_path / "run.json", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_differences_are_named() -> None:
    check_same({"seed": 0}, {"seed": 0}, "x.json: holds another run", "Name another --output.")
    with pytest.raises(SettingError, match=r"x: holds another run, with seed=0 and not seed=1\. Name another"):
        check_same({"seed": 0}, {"seed": 1}, "x: holds another run", "Name another --output.")

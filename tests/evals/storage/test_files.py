"""Files that a killed process leaves readable."""

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
    begin,
    check_file,
    check_folder,
    check_same,
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


def test_differences_are_named() -> None:
    check_same({"seed": 0}, {"seed": 0}, "x.json: holds another run", "Name another --output.")
    with pytest.raises(SettingError, match=r"x: holds another run, with seed=0 and not seed=1\. Name another"):
        check_same({"seed": 0}, {"seed": 1}, "x: holds another run", "Name another --output.")
    many = dict.fromkeys("abcde", 0), dict.fromkeys("abcde", 1)
    with pytest.raises(SettingError, match=r"^x, with a=0, b=0, c=0 and not a=1, b=1, c=1, and 2 more\. Name another"):
        check_same(*many, "x", "Name another --output.")


def test_a_folder_holds_one_thing(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    begin(path, {"seed": 0, "ratios": (0.5, 0.25)}, "another training")
    begin(path, {"seed": 0, "ratios": (0.5, 0.25)}, "another training")
    with pytest.raises(SettingError, match=r"holds another training, with seed=0 and not seed=1\. Name another output"):
        begin(path, {"seed": 1, "ratios": (0.5, 0.25)}, "another training")
    for cut_off in (path.read_text()[:9], "[]"):
        path.write_text(cut_off)
        with pytest.raises(
            DataError, match=r"identity\.json.*(broken JSON: .* Name another output|expected an object)"
        ):
            begin(path, {"seed": 0}, "another training")


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


def test_differences_within_objects_are_named() -> None:
    """Two objects as a whole, cut to their first values, may read alike."""
    model = dict.fromkeys(("class", "device", "dtype", "layers", "name"), "a")
    with pytest.raises(SettingError, match=r"^x, with model\.name='a' and not model\.name='b'\. Name another"):
        check_same({"model": model}, {"model": model | {"name": "b"}}, "x", "Name another --output.")
    one, other = (
        {"model": {**model, "weights": 16 * digit}, "data": {"own": {"digest": 16 * digit}}} for digit in "ab"
    )
    told = "with other weights of the model, with other own questions, right answers, images or frames"
    with pytest.raises(SettingError, match=rf"^x, {told}\. Name another"):
        check_same(one, other, "x", "Name another --output.")


def test_digests_are_told_in_words() -> None:
    one, other = ({"weights": 16 * digit, "sources": 64 * digit, "seed": seed} for digit, seed in (("a", 0), ("b", 1)))
    with pytest.raises(SettingError, match=r"^x, with seed=0 and not seed=1, with other weights, with another sources"):
        check_same(one, other, "x", "Name another --output.", {"weights": "other weights"})
    with pytest.raises(SettingError, match=r"^x, with other weights\. Name another"):
        check_same(one, one | {"weights": 16 * "b"}, "x", "Name another --output.", {"weights": "other weights"})


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

"""Which types of errors a command prints as one sentence, and the completion of words."""

import errno
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenprune.errors import DataError, PruningError, SettingError, TokenPruneError, UnsupportedError
from tokenprune.evals.cli import build_parser
from tokenprune.evals.cli.errors import plain_errors
from tokenprune.evals.stats import interval
from tokenprune.evals.storage import files


def test_a_data_error_is_a_value_error() -> None:
    assert issubclass(DataError, TokenPruneError)
    assert issubclass(DataError, ValueError)


@pytest.mark.parametrize("kind", [DataError, SettingError, UnsupportedError, PruningError])
def test_our_own_errors_are_one_sentence(kind: type[TokenPruneError]) -> None:
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise kind("a.json, line 3: broken; mend it")
    assert caught.value.code == "Error: a.json, line 3: broken; mend it"


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    """A ValueError is not the user's mistake, even if a file of this package raised it."""
    with pytest.raises(ValueError, match="no scores"), plain_errors():
        interval([], [])


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(SystemExit) as caught, plain_errors():
        path.read_text()
    assert caught.value.code == f"Error: cannot read or write {path}: No such file or directory"


def test_a_file_that_is_not_ones_own_is_one_sentence() -> None:
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise PermissionError(errno.EACCES, "Permission denied", "a.png")
    assert caught.value.code == (
        "Error: cannot read or write a.png: Permission denied. Change its permissions, or name another"
    )


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as caught, plain_errors():
        files.replace(tmp_path / "file" / "run.json", "{}")
    assert caught.value.code == f"Error: cannot read or write {tmp_path}/file/run.json.unfinished: Not a directory"


def test_an_operating_system_error_without_a_file_keeps_its_traceback() -> None:
    with pytest.raises(OSError, match="No space left"), plain_errors():
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(SystemExit, match=r"needs optuna, .*pip install"), plain_errors():
        raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
    with pytest.raises(ModuleNotFoundError), plain_errors():
        raise ModuleNotFoundError("No module named 'tokenprune.nothing'", name="tokenprune.nothing")


def test_an_interruption_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert "An evaluation, search, training or benchmark resumes with the same command" in capsys.readouterr().err


def test_a_reader_that_has_had_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as `head`. Output that is still buffered when the process ends is lost without an error."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as caught, plain_errors():
            print("a line", flush=True)
        print("another line", flush=True)
    assert caught.value.code == 1


# Shell completion, requested as argcomplete's script for bash does.


finders: Any = pytest.importorskip("argcomplete.finders")


class Finder(finders.CompletionFinder):
    def _init_debug_stream(self) -> None:
        """By default it takes over file descriptor 9, which may be pytest's."""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("exp", ["explain"]),
        ("explain a.jpg what --strategy vis", ["visionzip", "vispruner"]),
        ("explain a.jpg what --strategy fopru:la", ["fopru:layer="]),
        ("explain a.jpg what --strategy fopru:mode=row,la", ["fopru:mode=row,layer="]),
        ("explain a.jpg what --position-ids c", ["compact"]),
        ("eval --strategy fo", ["fopru"]),
        ("eval --strategy fopru gr", ["grid"]),
        ("bench --strategy fo", ["fopru"]),
        ("explain --ht", ["--html"]),
    ],
)
def test_shell_completion(words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"tokenprune {words}".replace("a.jpg", __file__)  # a wrong argument ends the completion
    for name, value in {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }.items():
        monkeypatch.setenv(name, value)
    answer = io.StringIO()
    with pytest.raises(SystemExit, match="0"):
        Finder()(build_parser(), exit_method=_exit, output_stream=answer)
    assert [word.strip() for word in answer.getvalue().split("\n")] == expected


def _exit(status: int) -> None:
    raise SystemExit(str(status))

"""Which types of errors a command prints as one sentence, and the completion of words."""

import errno
import io
import os
import sys
from typing import Any

import pytest

from tokenprune.errors import DataError, PruningError, SettingError, UnsupportedError
from tokenprune.evals.cli import build_parser
from tokenprune.evals.cli.errors import plain_errors

OUR_OWN = DataError, SettingError, UnsupportedError, PruningError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        *((kind("a.json, line 3: broken; mend it"), "a.json, line 3: broken; mend it") for kind in OUR_OWN),
        (OSError(errno.ENOENT, "No such file", "a.png"), "cannot read or write a.png: No such file"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.png"),
            "cannot read or write a.png: Permission denied. Change its permissions, or name another",
        ),
    ],
)
def test_what_is_one_sentence(error: Exception, said: str) -> None:
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise error
    assert caught.value.code == f"Error: {said}"


@pytest.mark.parametrize("error", [ValueError("no scores"), OSError(errno.ENOSPC, "No space left on device")])
def test_what_keeps_its_traceback(error: Exception) -> None:
    """A bug of ours, and an error of the operating system without a file."""
    with pytest.raises(type(error)) as caught, plain_errors():
        raise error
    assert caught.value is error


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

"""Shell completion, requested as argcomplete's script for bash does."""

import io
from typing import Any

import pytest

from tokenprune.evals.cli import build_parser

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

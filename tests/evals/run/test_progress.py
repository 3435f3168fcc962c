"""Progress in a log and in a terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from tokenprune.evals.run import progress


def output(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool, every: float) -> str:
    monkeypatch.setattr(progress, "EVERY", every)
    file = io.StringIO()
    with progress.progress_bar(Console(file=file, force_terminal=is_terminal, width=80)) as bar:
        task = bar.add_task("answers [half]", total=8, completed=2)
        for _ in range(3):
            bar.advance(task, 2)
    return file.getvalue()


def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = output(monkeypatch, is_terminal=False, every=0.0).splitlines()[:3]
    assert [line.split(",")[0] for line in lines] == [f"answers [half]: {n} of 8" for n in (4, 6, 8)]
    assert re.fullmatch(r"answers \[half\]: 6 of 8, about 0:00:0\d left", lines[1])


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert " of 8" not in output(monkeypatch, is_terminal=False, every=60.0)


def test_a_terminal_has_its_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert " of 8" not in output(monkeypatch, is_terminal=True, every=0.0)

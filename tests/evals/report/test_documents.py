"""Markdown tables, and the documents that they are inserted into."""

from __future__ import annotations

from pathlib import Path

from helpers.commands import command
from helpers.files.rows import row

from tokenprune.evals.report import markers
from tokenprune.evals.report.report import report
from tokenprune.evals.report.table import Table
from tokenprune.evals.storage.results_io import to_line


def test_what_a_user_names_stays_in_its_cell() -> None:
    table = str(Table(["split", "n"], [["left|right", "1"], ["two\nlines", "2"]]))
    assert table.splitlines()[2:] == [r"| left\|right | 1 |", "| two lines | 2 |"]


def test_a_document_is_whole_or_as_it_was(tmp_path: Path) -> None:
    """It has either the new tables or, if the disk is full, its old content. A symbolic link stays one."""
    rows = [row("unpruned", "original", 1.0, {"": [1.0, 0.0]}), row("Random", "original", 0.25, {"": [0.0, 0.0]})]
    path, page, link = (tmp_path / name for name in ("rows.jsonl", "page.md", "link.md"))
    path.write_text("".join(f"{to_line(one)}\n" for one in rows))
    page.write_text(before := "".join(markers.marks("report")))
    link.symlink_to(page)
    (tmp_path / "page.md.unfinished").symlink_to("/dev/full")
    assert "page.md: cannot be written" in command("report", path, "--into", link)
    assert page.read_text() == before
    (tmp_path / "page.md.unfinished").unlink()
    assert command("report", path, "--into", link) == 0
    assert report(rows, further=False) in page.read_text()
    assert link.is_symlink()

"""The tables in the documents match the stored results."""

from pathlib import Path

import pytest

from tokenprune.evals.dev.tables import __main__ as tables
from tokenprune.evals.dev.tables import catalogue
from tokenprune.evals.report import markers

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted((ROOT / "evals" / "results").glob("*.md"))
SERVED = ROOT / "tokenprune" / "serving" / "models.md"
CATALOGUE = ROOT / "tokenprune" / "strategies" / "catalogue.md"
SETS = ROOT / "evals" / "tasks" / "sets.md"
DOCUMENTS = [ROOT / "README.md", ROOT / "evals" / "README.md", CATALOGUE, SERVED, SETS, *PAGES]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_have_the_stored_results(path: Path) -> None:
    """If not, run `python -m tokenprune.evals.dev.tables` with the files' names."""
    text = path.read_text(encoding="utf-8")
    assert tables.filled(text) == text


def test_type_checkers_read_every_strategy() -> None:
    """If not, run `python -m tokenprune.evals.dev.tables tokenprune/strategies/__init__.pyi`."""
    assert (ROOT / "tokenprune" / "strategies" / "__init__.pyi").read_text(encoding="utf-8") == catalogue.public_names()


def test_every_table_is_on_a_page() -> None:
    names = [name for path in DOCUMENTS for name in markers.names_in(path.read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(tables.TABLES)


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TABLES", {"one": lambda: "| 1 |\n"})
    begin, end = markers.marks("one")
    document = tmp_path / "x.md"
    document.write_text(f"before\n{begin}{end}after\n")
    tables.main([str(document)])
    assert document.read_text() == f"before\n{begin}\n| 1 |\n\n{end}after\n"
    document.write_text("".join(markers.marks("two")))
    with pytest.raises(ValueError, match="no table is called 'two'; there are one"):
        tables.main([str(document)])

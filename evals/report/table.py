"""A table of text, as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

#: Shown in a cell without a value.
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """Cells of text; `str` gives Markdown, with bars and line breaks in cells escaped."""

    headings: Sequence[str]
    lines: Sequence[Sequence[str]]

    def __str__(self) -> str:
        rule = ["---"] * len(self.headings)
        return "\n".join(f"| {' | '.join(map(_escape, cells))} |" for cells in (self.headings, rule, *self.lines))


def _escape(cell: str) -> str:
    return " ".join(cell.splitlines()).replace("|", r"\|")

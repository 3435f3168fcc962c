"""A table of text, as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

#: In a cell that has no value.
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """Cells of text; `str` gives Markdown."""

    headings: Sequence[str]
    lines: Sequence[Sequence[str]]

    def __str__(self) -> str:
        rule = ["---"] * len(self.headings)
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.headings, rule, *self.lines))

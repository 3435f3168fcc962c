"""A table of text, as Markdown, LaTeX or CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

#: Shown in a cell without a value.
NOTHING = "\N{EN DASH}"
#: Formats of a table, and how their files end.
FORMATS = {"markdown": ".md", "latex": ".tex", "csv": ".csv"}
_LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {sign: f"${sign}$" for sign in "<>"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\N{EN DASH}": "--"}
    | {"\N{UPWARDS ARROW}": r"$\uparrow$", "\N{DOWNWARDS ARROW}": r"$\downarrow$", "\n": " "}
)


@dataclass(frozen=True)
class Table:
    """Cells of text; `str` gives Markdown, with bars and line breaks in cells escaped."""

    headings: Sequence[str]
    lines: Sequence[Sequence[str]]

    def __str__(self) -> str:
        rule = ["---"] * len(self.headings)
        return "\n".join(f"| {' | '.join(map(_escape, cells))} |" for cells in (self.headings, rule, *self.lines))

    def text(self, form: str) -> str:
        """Return the table in one of the FORMATS."""
        return {"markdown": self.__str__, "latex": self._latex, "csv": self._csv}[form]()

    def _latex(self) -> str:
        """Return a `tabular` with the rules of the package booktabs."""
        rows = [" & ".join(cell.translate(_LATEX) for cell in cells) + r" \\" for cells in (self.headings, *self.lines)]
        columns = "l" * len(self.headings)
        parts = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rows[0], r"\midrule", *rows[1:]]
        return "\n".join([*parts, r"\bottomrule", r"\end{tabular}"])

    def _csv(self) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.headings, *self.lines])
        return text.getvalue().rstrip("\n")


def _escape(cell: str) -> str:
    return " ".join(cell.splitlines()).replace("|", r"\|")


def joined(parts: Sequence[str | Table], form: str = "markdown") -> str:
    """Return sentences and tables as one text in one of the FORMATS; sentences are comments where it has no text."""
    comment = {"markdown": "", "latex": "% ", "csv": "# "}[form]
    texts = (
        part.text(form) if isinstance(part, Table) else "\n".join(f"{comment}{line}" for line in part.splitlines())
        for part in parts
    )
    return "\n\n".join(texts) + "\n"

"""The table of a protocol: measured beside published numbers."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from math import hypot, nan
from statistics import fmean

from tokenprune.evals.papers.measuring import Measured, Row
from tokenprune.evals.papers.protocol import UNPRUNED, Column, Protocol
from tokenprune.evals.report.estimate import AGREES, HIGHER, LOWER, Estimate
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.storage.results import TaskResult, compare

MARKS = {AGREES: "=", HIGHER: "\N{UPWARDS ARROW}", LOWER: "\N{DOWNWARDS ARROW}", None: ""}
AVERAGE = "average, % of unpruned"


@dataclass(frozen=True)
class Comparison:
    """What was measured of a protocol."""

    protocol: Protocol
    measured: Measured

    @property
    def whole(self) -> Row:
        return UNPRUNED, self.protocol.whole

    @property
    def rows(self) -> list[Row]:
        """The rows of the table: unpruned, then those with most tokens first."""
        rows = [row for row in self.measured if row != self.whole]
        return [self.whole, *sorted(rows, key=lambda row: -row[1])]

    def estimate(self, row: Row, column: Column) -> Estimate | None:
        """Return the measured number of a cell; None if it was not measured or every question failed."""
        result = self.measured.get(row, {}).get(column.name)
        if result is None or not result.n:
            return None
        if not column.metrics:
            return Estimate.of(result.accuracy, result.interval, column.scale)
        parts = [
            Estimate.of(result.metrics[name], result.intervals.get(name, (nan, nan)), column.scale)
            for name in column.metrics
            if name in result.metrics
        ]
        if len(parts) < len(column.metrics):
            return None
        if column.mean:  # of the same questions, so as wide as if they went up and down together
            return Estimate(*(fmean(bounds) for bounds in zip(*map(astuple, parts), strict=True)))
        return Estimate.total(parts)

    def average(self, row: Row) -> tuple[Estimate | None, float | None]:
        """Return the mean over the measured columns of the accuracy relative to the unpruned model's, in per cent, and
        the same of the published numbers; if those of a column are not known, the printed mean of all columns, as long
        as all were measured. Questions of different columns are taken as independent."""
        columns = [column for column in self.protocol.columns if self._relative(row, column) is not None]
        relative = [part for column in columns if (part := self._relative(row, column)) is not None]
        if not relative or row == self.whole:
            return None, None
        own, unpruned = (self.protocol.published.get(name, {}) for name in (row, self.whole))
        measured = Estimate.total(relative, 1 / len(relative))
        if all(column.name in own and column.name in unpruned for column in columns):
            return measured, fmean(100 * own[column.name] / unpruned[column.name] for column in columns)
        complete = len(columns) == len(self.protocol.columns)
        return measured, self.protocol.average.get(row) if complete else None

    def _relative(self, row: Row, column: Column) -> Estimate | None:
        own, unpruned = self.estimate(row, column), self.estimate(self.whole, column)
        if own is None or unpruned is None or not unpruned.value:
            return None
        if not column.metrics:
            paired = compare(self._result(row, column), self._result(self.whole, column))
            return Estimate.of(paired.relative, paired.relative_interval, 100.0)
        value = own.value / unpruned.value  # as if they were independent, which gives too wide an interval
        width = value * hypot((own.high - own.low) / 2 / own.value, (unpruned.high - unpruned.low) / 2 / unpruned.value)
        return Estimate.of(value, (value - width, value + width), 100.0)

    def _result(self, row: Row, column: Column) -> TaskResult:
        return self.measured[row][column.name]

    def summary(self) -> Table:
        """Return the table as it was published: a row per method and budget, a column per set. A cell holds the
        measured number, whether it agrees, and the published one."""
        lines = []
        for row in self.rows:
            cells = [self._cell(self.estimate(row, column), self._published(row, column)) for column in self._columns]
            lines.append([f"{row[1]:g}", row[0], *cells, self._cell(*self.average(row))])
        n = {name: f" (n = {result.n})" for name, result in self.measured[self.whole].items()}
        headings = [column.name + n.get(column.name, "") for column in self._columns]
        return Table([self._budget, "method", *headings, AVERAGE], lines)

    def details(self) -> Table:
        """Return a line per cell: measured and published, their difference, intervals, verdict and n."""
        lines = []
        for row in self.rows:
            for column in self._columns:
                if (estimate := self.estimate(row, column)) is not None:
                    n = str(self._result(row, column).n)
                    lines.append(self._line(row, column.name, estimate, self._published(row, column), n))
            average, published = self.average(row)
            if average is not None:
                lines.append(self._line(row, AVERAGE, average, published, NOTHING))
        headings = ["set", "measured", "published", "difference", "verdict", "n"]
        return Table([self._budget, "method", *headings], lines)

    @property
    def _budget(self) -> str:
        return "keep ratio" if self.protocol.visual_tokens is None else "tokens"

    @property
    def _columns(self) -> list[Column]:
        """The columns with a number, measured or published."""
        known = {name for row in self.rows for name in (*self.protocol.published.get(row, {}), *self.measured[row])}
        return [column for column in self.protocol.columns if column.name in known]

    def _published(self, row: Row, column: Column) -> float | None:
        return self.protocol.published.get(row, {}).get(column.name)

    def _cell(self, estimate: Estimate | None, published: float | None) -> str:
        own = [] if estimate is None else [str(estimate), MARKS[estimate.verdict(published)]]
        return " ".join(filter(None, [*own, "" if published is None else f"({published:.1f})"])) or NOTHING

    def _line(self, row: Row, name: str, estimate: Estimate, published: float | None, n: str) -> list[str]:
        shown = NOTHING if published is None else f"{published:.1f}"
        verdict = estimate.verdict(published) or NOTHING
        return [f"{row[1]:g}", row[0], name, str(estimate), shown, estimate.minus(published), verdict, n]

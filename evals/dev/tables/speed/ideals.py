"""The time of every strategy relative to its ideal's, as `dev.experiments.ideals` stored it."""

from collections.abc import Sequence

from tokenprune.evals.bench.figures import Figures, Median, figures
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.tables import provenance, ratio_cell
from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.report.table import NOTHING, Table

#: The largest acceptable ratios to the ideal's time to first token, and to its decode step.
TTFT, DECODE = 1.03, 1.01


def stored() -> str:
    """Return the table of all stored shapes, and what they were measured on."""
    records = [Record.read(path) for path in sorted((RESULTS / "ideals").glob("*.json"))]
    notes = "\n\n".join(f"{record.title}: {provenance(record)}." for record in records)
    return f"{table(records)}\n\n{notes}\n"


def table(records: Sequence[Record]) -> Table:
    """Return, for each shape and keep ratio, one line for all strategies together and one per strategy, sorted by what
    they add to the time to first token, most first."""
    groups: dict[tuple[str, float], list[Figures]] = {}
    of_shape: dict[str, list[Record]] = {}
    for record in records:
        shape = str(record.about["model"]).rpartition(" ")[2]
        of_shape.setdefault(shape, []).append(record)
        for case in figures(record):
            if case.is_strategy and case.ttft_to_ideal is not None:
                groups.setdefault((shape, case.facts.keep_ratio), []).append(case)
    lines = []
    for (shape, keep_ratio), own in sorted(groups.items(), key=lambda group: (group[0][0], -group[0][1])):
        lines.append(_together(of_shape[shape], shape, keep_ratio))
        lines += [_line(shape, case) for case in sorted(own, key=_added, reverse=True)]
    headings = ["shape", "strategy", "keep ratio", "TTFT", "TTFT to ideal", "decode to ideal", "selection", "rounds"]
    return Table(headings, lines)


def _together(records: Sequence[Record], shape: str, keep_ratio: float) -> list[str]:
    """Return the line of all rounds of all strategies at a keep ratio on a shape, each relative to its own ideal."""
    timed = [
        (round_.seconds[fact.name], round_.seconds[fact.ideal])
        for record in records
        for round_ in record.rounds
        for fact in record.facts.values()
        if fact.keep_ratio == keep_ratio and fact.ideal in round_.seconds and fact.name in round_.seconds
    ]
    ttft, decode = (Median.of([own[phase] / ideal[phase] for own, ideal in timed]) for phase in ("ttft", "decode"))
    ratios = [_ratio(ttft, TTFT), _ratio(decode, DECODE)]
    return [shape, "all", f"{keep_ratio:.0%}", NOTHING, *ratios, NOTHING, str(len(timed))]


def _line(shape: str, case: Figures) -> list[str]:
    assert case.ttft_to_ideal is not None
    fact, selection, share = case.facts, case.seconds.get("selection"), case.selection_share
    return [
        shape,
        fact.strategy,
        f"{fact.keep_ratio:.0%}",
        f"{case.seconds['ttft'].value:.2f} s",
        _ratio(case.ttft_to_ideal, TTFT),
        _ratio(case.decode_to_ideal, DECODE),
        NOTHING if selection is None or share is None else f"{1e3 * selection.value:.1f} ms, {share.value:.1%}",
        str(case.ttft_to_ideal.n),
    ]


def _added(case: Figures) -> float:
    return case.ttft_to_ideal.value if case.ttft_to_ideal else 0.0


def _ratio(median: Median | None, most: float) -> str:
    """Format a ratio with its interval, in bold if the whole interval is above `most`."""
    if median is None:
        return NOTHING
    text = ratio_cell(median)
    return f"**{text}**" if round(median.low, 3) > most else text

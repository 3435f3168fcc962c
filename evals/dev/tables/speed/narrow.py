"""What a patch adds to the time to first token, and how much of it its hooks take, on the narrow model of
`dev.experiments.ideals --narrow`."""

from collections.abc import Callable, Sequence

from tokenprune.evals.bench.figures import Median
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.tables import provenance
from tokenprune.evals.bench.timing.clock import Seconds
from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.report.table import Table

#: The times of a strategy, and of its ideal in the same round.
Pair = tuple[Seconds, Seconds]


def stored() -> str:
    record = Record.read(RESULTS / "ideals_narrow" / "llava-1.5-0.5b.json")
    return f"{table(record)}\n\n{record.title}: {provenance(record)}.\n"


def table(record: Record) -> Table:
    """Return a line for all strategies together, and one for each over all its keep ratios, sorted by what the patch
    adds outside its hooks, most first. Intervals are 95 %."""
    pairs: dict[str, list[Pair]] = {}
    for fact in record.facts.values():
        for one in record.rounds:
            if fact.ideal in one.seconds and fact.name in one.seconds:
                pairs.setdefault(fact.strategy, []).append((one.seconds[fact.name], one.seconds[fact.ideal]))
    together = [pair for own in pairs.values() for pair in own]
    groups = sorted(pairs.items(), key=lambda group: _median(group[1], _outside).value, reverse=True)
    headings = ["strategy", "the ideal's TTFT", "the patch adds", "inside hooks", "outside hooks", "rounds"]
    return Table(headings, [_line(name, group) for name, group in [("all", together), *groups]])


def _line(name: str, pairs: Sequence[Pair]) -> list[str]:
    ideal, added = _median(pairs, lambda own, ideal: ideal["ttft"]), _median(pairs, _added)
    inside, outside = _median(pairs, lambda own, ideal: own["selection"]), _median(pairs, _outside)
    interval = f"{1e3 * outside.value:.1f} [{1e3 * outside.low:.1f}, {1e3 * outside.high:.1f}] ms"
    return [name, *(f"{1e3 * one.value:.1f} ms" for one in (ideal, added, inside)), interval, str(len(pairs))]


def _added(own: Seconds, ideal: Seconds) -> float:
    return own["ttft"] - ideal["ttft"]


def _outside(own: Seconds, ideal: Seconds) -> float:
    return _added(own, ideal) - own["selection"]


def _median(pairs: Sequence[Pair], value: Callable[[Seconds, Seconds], float]) -> Median:
    found = Median.of([value(own, ideal) for own, ideal in pairs])
    assert found is not None
    return found

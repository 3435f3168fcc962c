"""Judge published findings on the bundled model: whether each holds, with the interval of the difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum

from tokenprune.evals.dev.measure.plan import is_label_inside
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.run.setups import DOWNSAMPLE, UNPRUNED
from tokenprune.evals.stats import Paired
from tokenprune.evals.storage.results import SetupKey, TaskResult, by_setup, compare

#: KV caches whose sizes differ by less than this share count as equal.
EQUAL = 0.02
FOPRU, FOPRU_LOSS = "FoPru rank -2", 0.03
VFLOWOPT_KEEPS = 0.93

Groups = Mapping[SetupKey, Mapping[str, TaskResult]]
Line = list[str]
Interval = tuple[float, float]


class Verdict(Enum):
    HOLDS = "holds"
    FAILS = "does not hold"
    CHANCE = "within chance"
    UNKNOWN = "not measured"


def above(interval: Interval, least: float) -> Verdict:
    """Return HOLDS if a value with this 95 % interval is surely at least `least`, FAILS if surely not, else CHANCE."""
    low, high = interval
    if low >= least:
        return Verdict.HOLDS
    return Verdict.FAILS if high < least else Verdict.CHANCE


def directions(rows: Sequence[TaskResult]) -> str:
    """Return all tables. `rows` are those of one set at one resolution."""
    groups = by_setup(rows)
    parts: list[str | Table] = [
        "GAP: original position IDs keep REC that compact ones lose, in points:",
        Table(["keep ratio", "strategy", "original - compact", "verdict"], list(_gap(groups))),
        "Shares of the unpruned accuracy that are kept, in per cent:",
        Table(["claim", "kept", "verdict"], list(_shares(groups))),
        f"How many strategies that prune before the language model are better than {DOWNSAMPLE}, and how many worse:",
        Table(
            ["keep ratio", "task", "better", "worse", "within chance", "best", "best - downsample"], [*_shrunk(groups)]
        ),
        "Inside the language model against before it, at KV caches that differ by at most "
        f"{EQUAL:.0%}: how many each is better than, worse than, and within chance of:",
        Table(
            ["keep ratio", "strategy", "task", "better", "worse", "within chance", "best before it", "inside - best"],
            [*_equal(groups)],
        ),
    ]
    return "\n\n".join(map(str, parts)) + "\n"


def _gap(groups: Groups) -> Iterator[Line]:
    """Strategies inside the language model are left out, because they do not change position IDs."""
    for key, own in groups.items():
        other = groups.get(key._replace(position_ids="compact"))
        if key.position_ids != "original" or other is None or "rec" not in own or is_label_inside(key.strategy):
            continue
        paired = compare(own["rec"], other["rec"])
        yield [_ratio(key), key.strategy, points(paired), _more(paired.interval).value]


def _shares(groups: Groups) -> Iterator[Line]:
    calibrated = next((key.strategy for key in groups if key.strategy.startswith("VFlowOpt searched_10")), None)
    claims = [
        (f"FoPru loses at most {FOPRU_LOSS:.0%} of VQA at 25 %", FOPRU, 0.25, 1 - FOPRU_LOSS),
        (f"VFlowOpt keeps {VFLOWOPT_KEEPS:.0%} of VQA at 10 %, calibrated", calibrated, 0.1, VFLOWOPT_KEEPS),
        (f"VFlowOpt keeps {VFLOWOPT_KEEPS:.0%} of VQA at 10 %, default settings", "VFlowOpt", 0.1, VFLOWOPT_KEEPS),
    ]
    whole = groups.get(SetupKey(UNPRUNED, "original", 1.0), {}).get("vqa")
    for claim, strategy, keep_ratio, least in claims:
        pruned = groups.get(SetupKey(strategy or "", "original", keep_ratio), {}).get("vqa")
        if pruned is None or whole is None:
            yield [claim, NOTHING, Verdict.UNKNOWN.value]
            continue
        paired = compare(pruned, whole)
        low, high = paired.relative_interval
        kept = f"{100 * paired.relative:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        yield [claim, kept, above(paired.relative_interval, least).value]


def _shrunk(groups: Groups) -> Iterator[Line]:
    for key, shrunk in groups.items():
        if key.strategy != DOWNSAMPLE:
            continue
        for task, baseline in shrunk.items():
            pruners = {
                other.strategy: compare(rows[task], baseline)
                for other, rows in groups.items()
                if task in rows
                and (other.keep_ratio, other.position_ids) == (key.keep_ratio, "original")
                and other.strategy not in (DOWNSAMPLE, UNPRUNED)
                and not is_label_inside(other.strategy)
            }
            if not pruners:
                continue
            best = max(pruners, key=lambda name: pruners[name].difference)
            difference = points(pruners[best])
            yield [_ratio(key), task.upper(), *_counts(pruners.values()), best, difference]


def _equal(groups: Groups) -> Iterator[Line]:
    before = {
        key: rows
        for key, rows in groups.items()
        if key.position_ids == "original"
        and key.strategy not in (DOWNSAMPLE, UNPRUNED)
        and not is_label_inside(key.strategy)
    }
    for key, rows in groups.items():
        if not is_label_inside(key.strategy) or key.position_ids != "original":
            continue
        for task, inside in rows.items():
            equal = {
                other: others[task]
                for other, others in before.items()
                if task in others and abs(others[task].kv_cache_bytes / inside.kv_cache_bytes - 1) <= EQUAL
            }
            if not equal:
                continue
            counts = _counts(compare(inside, other) for other in equal.values())
            best = max(equal, key=lambda other: equal[other].accuracy)
            paired = compare(inside, equal[best])
            name, difference = f"{best.strategy} at {_ratio(best)}", points(paired)
            yield [_ratio(key), key.strategy, task.upper(), *counts, name, difference]


def _counts(pairs: Iterable[Paired]) -> Line:
    """Count the differences that are above 0, below 0, and within chance of 0."""
    counted = Counter(_more(pair.interval) for pair in pairs)
    return [str(counted[verdict]) for verdict in (Verdict.HOLDS, Verdict.FAILS, Verdict.CHANCE)]


def _more(interval: Interval) -> Verdict:
    """Return HOLDS if a difference is surely above 0, FAILS if surely below, else CHANCE."""
    low, high = interval
    return Verdict.HOLDS if low > 0 else Verdict.FAILS if high < 0 else Verdict.CHANCE


def _ratio(key: SetupKey) -> str:
    return f"{100 * key.keep_ratio:g} %"


def points(difference: Paired) -> str:
    """Format a difference in points, with its interval."""
    low, high = difference.interval
    return f"{100 * difference.difference:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"

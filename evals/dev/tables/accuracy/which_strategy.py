"""One line per strategy: what was measured at an equal KV cache, what it needs, and what papers claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, median

from tokenprune.errors import UnsupportedError
from tokenprune.evals.dev.measure.plan import STRATEGIES
from tokenprune.evals.dev.stored import RESULTS, json_lines
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, NOTHING_MEASURED, ROWS, label, measured, percent
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.report.tables import BASELINE
from tokenprune.evals.run.setups import DOWNSAMPLE, UNPRUNED, read_strategy
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.results import TaskResult, by_setup, compare
from tokenprune.serving.vllm.startup.refusals import check_strategy
from tokenprune.strategy import Strategy, TowerStrategy

#: The KV caches at which strategies are compared: those of Random at these keep ratios.
BUDGETS = 0.25, 0.1
#: KV caches whose sizes differ by at most this share count as equal. downsample's is 2.8 % smaller at 10 %.
EQUAL = 0.03
TASKS = ("rec", "REC"), ("vqa", "VQA")
TIMES = RESULTS / "selection.jsonl"

HERE, VLLM = "transformers", "transformers, vLLM"
N_LAYERS = 32  # of a language model; any number gives the same table
#: An architecture whose vision tower can encode part of an image.
ARCHITECTURE = "TokenPruneQwen3VL"
#: Settings that do not change how long a selection takes.
FREE = "layer=", "attention_bias=", "mode=rank", "keep_ratio="


CALIBRATED = "vflowopt searched"


@dataclass(frozen=True)
class About:
    """What the table says about a strategy besides measured accuracy.

    text: its name in the plan; CALIBRATED stands for the settings that were searched for each keep ratio.
    """

    text: str

    @property
    def name(self) -> str:
        return "calibrated VFlowOpt" if self.text == CALIBRATED else label(self.text)

    @cached_property
    def strategy(self) -> Strategy:
        return read_strategy("vflowopt" if self.text == CALIBRATED else self.text).make({"keep_ratio": 0.9})

    @property
    def tower(self) -> str:
        """What it needs from the vision tower."""
        if self.text == DOWNSAMPLE:
            return "any image size"
        record, needs = type(self.strategy).record, self.strategy.needs
        if "cls" in needs:
            return "CLS"
        any_tower = "most" if isinstance(self.strategy, TowerStrategy) else "any"
        if record.best_with_cls:
            return f"{any_tower}, best with CLS"
        return any_tower if "vision_attention" in needs else f"{any_tower}, no attention"

    @property
    def engine(self) -> str:
        """The engines in which it runs. Both take smaller images."""
        if self.text == DOWNSAMPLE:
            return VLLM
        try:
            check_strategy(self.strategy, N_LAYERS, ARCHITECTURE)
        except UnsupportedError:
            return HERE
        return VLLM

    @property
    def claimed(self) -> str:
        return NOTHING if self.text == DOWNSAMPLE else type(self.strategy).record.claimed or NOTHING

    def cost(self, times: Mapping[str, str]) -> str:
        """The CPU time of selection, stored under the strategy with the settings that change how it selects."""
        return times.get(_timed(self.text), NOTHING)


ABOUT = tuple(map(About, (*STRATEGIES, CALIBRATED, "random", DOWNSAMPLE)))

#: The rows of a strategy at one keep ratio, by task.
Measured = Mapping[str, TaskResult]


def stored(folder: Path = ROWS, times: Path = TIMES) -> str:
    """Return the table and a sentence that counts what it shows.

    A strategy's numbers are those of its keep ratio whose KV cache is nearest to that of the first of the BUDGETS.
    Those whose cache is equal come first, sorted by mean accuracy.
    """
    groups = by_setup([row for row in measured(MAIN, folder).rows if row.position_ids == "original"])
    whole = groups.get(SetupKey(UNPRUNED, "original", 1.0))
    caches = [_cache(groups[key]) for ratio in BUDGETS if (key := SetupKey(BASELINE, "original", ratio)) in groups]
    if whole is None or len(caches) < len(BUDGETS):
        return NOTHING_MEASURED
    nearest = {about: [_nearest(about, groups, cache) for cache in caches] for about in ABOUT}
    is_equal = {about: [_is_equal(*pair) for pair in zip(near, caches, strict=True)] for about, near in nearest.items()}
    cost = dict(costs(times))
    lines = [[UNPRUNED, *_cells(whole), *[NOTHING] * 6]]
    for about in sorted(ABOUT, key=lambda about: (not is_equal[about][0], -_mean(nearest[about][0]))):
        first, second = nearest[about]
        smaller = _accuracies(second if is_equal[about][1] else {})
        about_it = about.tower, about.engine, about.claimed, about.cost(cost)
        lines.append([about.name, *_cells(first), *smaller, *about_it])
    (n_visual,) = {f"{row.n_visual:.0f}" for row in whole.values()}
    titles = [title for _, title in TASKS]
    head = ["strategy", "keep ratio", f"visual tokens a layer, of {n_visual}", "KV cache", *titles]
    head += [
        *(f"{title}, {percent(BUDGETS[1])} cache" for title in titles),
        "tower",
        "engine",
        "TextVQA (claimed)",
        "cost",
    ]
    equal = {about.name: nearest[about][0] for about in ABOUT if is_equal[about][0]}
    return f"{Table(head, lines)}\n\n{_counted(equal, whole)}\n"


def _nearest(about: About, groups: Mapping[SetupKey, Measured], cache: int) -> Measured:
    """Return a strategy's rows at the keep ratio whose KV cache is nearest to `cache`; {} if nothing is measured."""
    own = [rows for key, rows in groups.items() if key.strategy == _label(about, key.keep_ratio)]
    return min(own, key=lambda rows: abs(_cache(rows) - cache), default={})


def _cache(rows: Measured) -> int:
    return next(iter(rows.values())).kv_cache_bytes


def _is_equal(rows: Measured, cache: int) -> bool:
    return bool(rows) and abs(_cache(rows) / cache - 1) <= EQUAL


def _mean(rows: Measured) -> float:
    return mean(row.accuracy for row in rows.values()) if rows else 0.0


def _cells(rows: Measured) -> list[str]:
    """Return keep ratio, visual tokens, KV cache and accuracies."""
    if not rows:
        return [NOTHING] * (3 + len(TASKS))
    row = next(iter(rows.values()))
    return [percent(row.keep_ratio), f"{row.n_mean:.0f}", f"{row.kv_cache_bytes / 1e6:.2f} MB", *_accuracies(rows)]


def _accuracies(rows: Measured) -> list[str]:
    return [f"{100 * rows[task].accuracy:.1f}" if rows else NOTHING for task, _ in TASKS]


def _counted(equal: Mapping[str, Measured], whole: Measured) -> str:
    """Return a sentence on how many strategies of an equal cache differ from the unpruned model and from downsample."""
    pruned, parts = [rows for name, rows in equal.items() if name != DOWNSAMPLE], []
    for task, title in TASKS:
        against = [compare(rows[task], whole[task]).interval for rows in pruned]
        shrunk = [compare(rows[task], equal[DOWNSAMPLE][task]).interval for rows in pruned if DOWNSAMPLE in equal]
        within = sum(low <= 0 <= high for low, high in against)
        better, worse = sum(low > 0 for low, _ in shrunk), sum(high < 0 for _, high in shrunk)
        parts.append(
            f"on {title}, {within} are within chance of the unpruned model, and {better} are better and {worse} worse "
            "than downsample beyond chance"
        )
    return f"Of the {len(pruned)} strategies and settings with a {percent(BUDGETS[0])} cache: {'; '.join(parts)}."


def _label(about: About, ratio: float) -> str:
    return f"VFlowOpt searched_{100 * ratio:g}" if about.text == CALIBRATED else label(about.text)


def costs(times: Path) -> Iterator[tuple[str, str]]:
    """Yield the strategies, by their names in the file without FREE settings, and their CPU times."""
    for timed in json_lines(times):
        milliseconds = 1e3 * median(timed["seconds"])
        yield _timed(timed["strategy"]), f"{milliseconds:.0f} ms" if milliseconds >= 0.95 else f"{milliseconds:.1f} ms"


def _timed(text: str) -> str:
    """Return a strategy without the settings that do not change the time of a selection."""
    name, _, settings = text.removesuffix(" searched").partition(":")
    return ":".join(filter(None, [name, ",".join(word for word in settings.split(",") if not word.startswith(FREE))]))

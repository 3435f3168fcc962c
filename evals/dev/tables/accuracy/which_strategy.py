"""One line per strategy: what was measured at an equal KV cache, what it needs, and what papers claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from tokenprune.errors import UnsupportedError
from tokenprune.evals.dev.stored import RESULTS, json_lines
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, NOTHING_MEASURED, ROWS, label, measured, percent
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.report.tables import BASELINE
from tokenprune.evals.run.setups import DOWNSAMPLE, UNPRUNED, read_strategy
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.results import TaskResult, by_setup, compare
from tokenprune.serving.vllm.startup.refusals import check_strategy

#: The KV caches at which strategies are compared: those of Random at these keep ratios.
BUDGETS = 0.25, 0.1
#: KV caches whose sizes differ by at most this share count as equal. downsample's is 2.8 % smaller at 10 %.
EQUAL = 0.03
TASKS = ("rec", "REC"), ("vqa", "VQA")
TIMES = RESULTS / "selection.jsonl"

ANY, NO_ATTENTION, WITH_CLS, CLS = "any", "any, no attention", "any, best with CLS", "CLS"
HERE, VLLM = "transformers", "transformers, vLLM"
N_LAYERS = 32  # of a language model; any number gives the same table
#: An architecture whose vision tower can encode part of an image.
ARCHITECTURE = "TokenPruneQwen3VL"


@dataclass(frozen=True)
class About:
    """What the table says about a strategy besides measured accuracy.

    strategy: its name in the plan; CALIBRATED stands for the settings that were searched for each keep ratio.
    tower: what it needs from the vision tower. claimed: TextVQA in per cent, with a star if reported by others than its
        authors. timed: its name in the stored CPU times of selection. cost: that time, if it is not stored there.
    """

    strategy: str
    name: str
    tower: str
    claimed: str = NOTHING
    timed: str = ""
    cost: str = NOTHING


CALIBRATED = "vflowopt searched"
ABOUT = (
    About(CALIBRATED, "calibrated VFlowOpt", ANY, timed="vflowopt"),
    About("mosaic", "Mosaic", ANY, timed="mosaic"),
    About("mosaic:attention_bias=size", 'Mosaic, `attention_bias="size"`', ANY, timed="mosaic"),
    About(
        "fopru:score=cls,layer=-2,cells=auto",
        'FoPru cls -2, `cells="auto"`',
        CLS,
        timed="fopru:score=cls,cells=auto",
    ),
    About("vflowopt", "VFlowOpt", ANY, timed="vflowopt"),
    About("visionzip:layer=-2", "VisionZip -2", WITH_CLS, "55.5", "visionzip"),
    About("vispruner:layer=-2", "VisPruner -2", WITH_CLS, "55.6*", "vispruner"),
    About(
        "backgroundpruning:layer=-2",
        "BackgroundPruning -2",
        'CLS; without: `rank="column"`',
        timed="backgroundpruning",
    ),
    About("divprune", "DivPrune", NO_ATTENTION, "54.5*", "divprune"),
    About("fopru:mode=rank,layer=-2", "FoPru rank -2", ANY, timed="fopru"),
    About("fopru:mode=rank", "FoPru rank", ANY, timed="fopru"),
    About("fopru:mode=row", "FoPru row", ANY),
    About("prumerge:layer=-2", "PruMerge -2", WITH_CLS, timed="prumerge"),
    About("flowcut", "FlowCut", "most, best with CLS", "55.6*", cost="40 ms"),
    About("tome", "ToMe", "most, no attention"),
    About("nuwa:layer=-2", "Nuwa -2", WITH_CLS, "54.9", "nuwa"),
    About("scope:layer=-2", "SCOPE -2", WITH_CLS, "56.6", "scope"),
    About("holov:layer=-2", "HoloV -2", WITH_CLS, "55.4", "holov"),
    About("prunesid:layer=-2", "PruneSID -2", WITH_CLS, timed="prunesid"),
    About("dart", "DART", NO_ATTENTION, "54.4", "dart"),
    About("ivcprune", "IVCPrune", NO_ATTENTION, timed="ivcprune"),
    About("fastv", "FastV", ANY, "47.8", "fastv"),
    About("par", "PAR", ANY, timed="par"),
    About("attentionmass", "AttentionMass", ANY, timed="attentionmass"),
    About("efficientvla", "EfficientVLA", ANY, timed="efficientvla"),
    About("adatoken", "AdaToken", ANY, timed="adatoken:keep_ratio=0.5"),
    About("pyramiddrop", "PyramidDrop", ANY, "45.9 to 50.6", "pyramiddrop"),
    About("sparsevlm", "SparseVLM", ANY, "51.8", "sparsevlm"),
    About("averagepooling", "AveragePooling", NO_ATTENTION, timed="averagepooling"),
    About("grid", "Grid", ANY, timed="grid"),
    About("random", "Random", ANY, timed="random"),
    About(DOWNSAMPLE, "downsample", "any image size"),
)

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
    found = {about: [_nearest(about, groups, cache) for cache in caches] for about in ABOUT}
    is_equal = {about: [_is_equal(*one) for one in zip(near, caches, strict=True)] for about, near in found.items()}
    cost = dict(costs(times))
    lines = [[UNPRUNED, *_cells(whole), *[NOTHING] * 6]]
    for about in sorted(ABOUT, key=lambda about: (not is_equal[about][0], -_mean(found[about][0]))):
        first, second = found[about]
        smaller = _accuracies(second if is_equal[about][1] else {})
        about_it = about.tower, engine_of(about), about.claimed, cost.get(about.timed, about.cost)
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
    equal = {about.name: found[about][0] for about in ABOUT if is_equal[about][0]}
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


def engine_of(about: About) -> str:
    """Return the engines in which a strategy runs. Both take smaller images."""
    if about.strategy == DOWNSAMPLE:
        return VLLM
    strategy = read_strategy("vflowopt" if about.strategy == CALIBRATED else about.strategy).make({"keep_ratio": 0.9})
    try:
        check_strategy(strategy, N_LAYERS, ARCHITECTURE)
    except UnsupportedError:
        return HERE
    return VLLM


def _label(about: About, ratio: float) -> str:
    return f"VFlowOpt searched_{100 * ratio:g}" if about.strategy == CALIBRATED else label(about.strategy)


def costs(times: Path) -> Iterator[tuple[str, str]]:
    """Yield the strategies, by their names in `dev.experiments.selection.images`, and their CPU times."""
    for timed in json_lines(times):
        milliseconds = 1e3 * median(timed["seconds"])
        yield timed["strategy"], f"{milliseconds:.0f} ms" if milliseconds >= 0.95 else f"{milliseconds:.1f} ms"

"""One line per strategy: what it needs, what was measured, and what papers claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from tokenprune.errors import UnsupportedError
from tokenprune.evals.dev.stored import RESULTS, json_lines
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, ROWS, label, listed, measured, percent
from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.run.setups import read_strategy
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.results import by_setup
from tokenprune.serving.vllm.startup.refusals import check_strategy

#: The keep ratios of the table.
RATIOS = 0.25, 0.1
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
)


def stored(folder: Path = ROWS, times: Path = TIMES) -> str:
    """Return the table, sorted by mean accuracy; strategies that lack one of the RATIOS come last."""
    found = measured(MAIN, folder)
    groups, cost = by_setup(found.rows), dict(costs(times))

    def accuracies(about: About) -> list[float | None]:
        setups = [groups.get(SetupKey(_label(about, ratio), "original", ratio), {}) for ratio in RATIOS]
        return [setup[task].accuracy if task in setup else None for task, _ in TASKS for setup in setups]

    def rank(about: About) -> tuple[bool, float]:
        known = [value for value in accuracies(about) if value is not None]
        return len(known) < len(RATIOS) * len(TASKS), -(mean(known) if known else 0.0)

    lines = [
        [
            about.name,
            about.tower,
            engine_of(about),
            *(NOTHING if value is None else f"{100 * value:.1f}" for value in accuracies(about)),
            about.claimed,
            cost.get(about.timed, about.cost),
        ]
        for about in sorted(ABOUT, key=rank)
    ]
    headings = [f"{title} {percent(ratio)}" for _, title in TASKS for ratio in RATIOS]
    table = Table(["strategy", "tower", "engine", *headings, "TextVQA (claimed)", "cost"], lines)
    return "\n\n".join([str(table), *_notes(found.missing)]) + "\n"


def engine_of(about: About) -> str:
    """Return the engines in which a strategy runs."""
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


def _notes(missing: Sequence[float]) -> list[str]:
    found = [percent(ratio) for ratio in RATIOS if ratio in missing]
    return [f"{listed(found)}: not measured yet."] if found else []

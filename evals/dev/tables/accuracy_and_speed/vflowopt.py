"""VFlowOpt on the bundled model: rows of `tokenprune eval`, settings of `tokenprune optimize`, timings of `bench`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tokenprune.evals.bench.figures import Figures, figures
from tokenprune.evals.bench.record import Record
from tokenprune.evals.bench.tables import ratios
from tokenprune.evals.dev.measure.directions import points
from tokenprune.evals.dev.stored import RESULTS
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, ROWS, measured
from tokenprune.evals.models.bundled import SETTINGS
from tokenprune.evals.report.table import Table
from tokenprune.evals.run.setups import DOWNSAMPLE, UNPRUNED
from tokenprune.evals.storage.results import SetupKey, TaskResult, by_setup, compare
from tokenprune.evals.storage.results_io import read
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt
from tokenprune.strategies.settings import SettingsFile

#: Settings files that were searched with one thing changed, all at 25 %.
ABLATED = RESULTS.parent / "vflowopt_ablations"
TIMED = "llava-onevision-0.5b"  # the bench's file
BASELINES = "FoPru rank -2", "FoPru cls -2 auto", "Mosaic", "Random", "Grid", DOWNSAMPLE, "VFlowOpt"

#: What each ablation changes.
ABLATIONS = {
    "VFlowOpt searched_25_not_recycled": "no recycling, searched without it",
    "VFlowOpt searched_25_one_stage": "one stage before the language model, searched without the others",
    "VFlowOpt": "no calibration: default settings",
    "VFlowOpt searched_25_mean_pooled": "objective: mean of all tokens after the image",
    "VFlowOpt searched_25_second_last": "map of the second-to-last encoder layer (`layer=-2`)",
    "VFlowOpt searched_25_as_released": "map as in the released code (`as_released=True`)",
}


def report(rows: Sequence[TaskResult], files: Sequence[SettingsFile], timings: Sequence[Figures]) -> str:
    """Return all tables; `files` are the ablations', `timings` what the bench measured."""
    groups = by_setup(rows)
    parts: list[str | Table] = [
        "Calibrated VFlowOpt against the others on the same questions, in points, with 95 % interval:",
        Table(["keep ratio", "calibrated VFlowOpt -", *_titles(rows)], list(_against_others(groups))),
        "Ablations at 25 %, in per cent, and their paired differences to calibrated VFlowOpt in points:",
        Table(
            ["", *(f"{title}{what}" for title in _titles(rows) for what in ("", ", difference"))],
            list(_ablations(groups)),
        ),
        "What the ablations' searches found (50 trials on 30 questions each; the cosine is that on these questions):",
        searches(files),
        "KV cache of the visual tokens alone, without the text's computed share, against the unpruned model's:",
        Table(["keep ratio", "strategy", "bytes", "less"], list(_visual_bytes(groups))),
    ]
    timed = [one for one in timings if one.facts.strategy == "VFlowOpt"]
    if timed:
        shape = f"`{TIMED}` with random weights ([where and how](bench.md))"
        parts += [f"Default settings on the shape of {shape}, ratios within rounds, with 95 % interval:", ratios(timed)]
    return "\n\n".join(map(str, parts)) + "\n"


def searches(files: Sequence[SettingsFile]) -> Table:
    """Return what every search found."""
    return Table(
        ["file", "R1", "R2", "R3", "threshold", "alpha", "cell", "cosine by default", "found"],
        [_found(file) for file in files],
    )


def settings_files(folder: Path = SETTINGS) -> list[SettingsFile]:
    """Read what every search found, sorted by keep ratio and name; by default, for the bundled model."""
    files = [SettingsFile.read(path) for path in sorted(folder.glob("*.json"))]
    return sorted(files, key=lambda file: file.settings["keep_ratio"])


def found() -> str:
    """Return what the searches found for the bundled model."""
    return f"{searches(settings_files())}\n"


def stored(results: Path = RESULTS) -> str:
    """Return the section's tables, from the results stored in `results`."""
    timings = results / "bench" / f"{TIMED}.json"
    rows = [*measured(MAIN, results / ROWS.name).rows, *read([results / "vflowopt.jsonl"])]
    return report(rows, settings_files(ABLATED), figures(Record.read(timings)))


Groups = Mapping[SetupKey, Mapping[str, TaskResult]]


def _calibrated(keep_ratio: float) -> SetupKey:
    return SetupKey(f"VFlowOpt searched_{100 * keep_ratio:g}", "original", keep_ratio)


def _ratios(groups: Groups) -> list[float]:
    return sorted({key.keep_ratio for key in groups if _calibrated(key.keep_ratio) in groups}, reverse=True)


def _titles(rows: Sequence[TaskResult]) -> list[str]:
    return list(dict.fromkeys(row.task.upper() for row in rows))


def _against_others(groups: Groups) -> Iterator[list[str]]:
    for keep_ratio in _ratios(groups):
        own = groups[_calibrated(keep_ratio)]
        for name in BASELINES:
            other = groups.get(SetupKey(name, "original", keep_ratio))
            if other is not None:
                yield [f"{keep_ratio:.0%}", name, *(points(compare(own[task], other[task])) for task in own)]


def _ablations(groups: Groups) -> Iterator[list[str]]:
    whole = groups[_calibrated(0.25)]
    yield ["calibrated VFlowOpt", *(cell for row in whole.values() for cell in (f"{100 * row.accuracy:.1f}", ""))]
    for label, what in ABLATIONS.items():
        rows = groups.get(SetupKey(label, "original", 0.25))
        if rows is not None:
            cells = [(f"{100 * rows[task].accuracy:.1f}", points(compare(rows[task], whole[task]))) for task in whole]
            yield [what, *(cell for pair in cells for cell in pair)]


def _visual_bytes(groups: Groups) -> Iterator[list[str]]:
    """Yield the KV cache of visual tokens alone. Two prompts that differ only in visual tokens give the bytes of one
    such token, and thus those of the text."""
    task, whole = next(iter(groups[SetupKey(UNPRUNED, "original", 1.0)].items()))
    half = groups[SetupKey("Random", "original", 0.5)][task]
    a_token = (whole.kv_cache_bytes - half.kv_cache_bytes) / (whole.n_visual - half.n_kept)
    text = whole.kv_cache_bytes - a_token * whole.n_visual
    for keep_ratio in _ratios(groups):
        for key in (SetupKey("VFlowOpt", "original", keep_ratio), _calibrated(keep_ratio)):
            if key in groups:
                visual = groups[key][task].kv_cache_bytes - text
                less = 1 - visual / (whole.kv_cache_bytes - text)
                yield [f"{keep_ratio:.0%}", key.strategy, f"{visual:,.0f}", f"{less:.1%}"]


def _found(file: SettingsFile) -> list[str]:
    found, objective = VFlowOpt(**file.settings), file.search["objective"]
    third = f"{found.last(file.model['layers']):.3f}" if found.progressive else "1"
    second = f"{found.second:.3f}" if found.progressive else "1"
    cell = f"{found.cell:.1f}" if found.recycle and found.cell else "none"
    numbers = [f"{found.entering:.3f}", second, third, f"{found.threshold:.1f}", f"{found.alpha:.2f}", cell]
    return [f"`{file.path.name}`", *numbers, f"{objective['default']:.4f}", f"{objective['best']:.4f}"]

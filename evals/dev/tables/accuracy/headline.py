"""The short table of accuracy: a few strategies of the plan's main part at each keep ratio."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenprune.evals.defaults import DEFAULT_STRATEGY
from tokenprune.evals.dev.measure.directions import FOPRU
from tokenprune.evals.dev.measure.plan import STRATEGIES, is_inside
from tokenprune.evals.dev.tables.accuracy.adapted import trained
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, NOTHING_MEASURED, ROWS, label, measured
from tokenprune.evals.report.tables import BASELINE, summary_table
from tokenprune.evals.run.setups import DOWNSAMPLE, UNPRUNED
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.storage.results import TaskResult, by_setup

ALWAYS = (UNPRUNED, label(DEFAULT_STRATEGY), FOPRU, BASELINE, DOWNSAMPLE)
KEEP_RATIOS = (1.0, 0.25)


def stored(folder: Path = ROWS) -> str:
    """Return, at KEEP_RATIOS and with original position IDs, the strategies in ALWAYS, the best one, and what was
    trained and then asked the same questions."""
    main = measured(MAIN, folder)
    if not main.rows:
        return NOTHING_MEASURED
    best, asked = set(best_of_each_ratio(main.rows)), {row.questions for row in main.rows}
    adapted = [row for row in trained(folder.parent) if row.keep_ratio in KEEP_RATIOS and row.questions in asked]
    shown = [
        row
        for row in main.rows
        if row.keep_ratio in KEEP_RATIOS
        and row.position_ids == "original"
        and (row.strategy in ALWAYS or row.key in best)
    ]
    return "\n\n".join([str(summary_table([*shown, *adapted])), *main.not_measured]) + "\n"


def best_of_each_ratio(rows: Sequence[TaskResult]) -> Iterator[SetupKey]:
    """Yield, at each keep ratio, the setup with the best mean over tasks. Leaves out setups that need calibration, and
    those that prune inside the language model, where the same keep ratio gives a larger KV cache."""
    names, groups = {label(name) for name in STRATEGIES if not is_inside(name)}, by_setup(rows)
    for ratio in dict.fromkeys(row.keep_ratio for row in rows):
        own = [
            key
            for key in groups
            if key.strategy in names and key.position_ids == "original" and key.keep_ratio == ratio
        ]
        if own:
            yield max(own, key=lambda key: sum(row.accuracy for row in groups[key].values()) / len(groups[key]))

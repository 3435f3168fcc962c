"""The example of the README's first image: chosen by a rule from the stored answers of the main table."""

from collections.abc import Sequence

from tokenprune.evals.dev.tables.accuracy.adapted import trained
from tokenprune.evals.dev.tables.accuracy.measured import MAIN, measured
from tokenprune.evals.models.bundled import SCENES, SETTINGS
from tokenprune.evals.run.calibration_images import calibrated_on, without_images
from tokenprune.evals.run.questions import limit_questions, load_questions
from tokenprune.evals.run.setups import UNPRUNED, Setup
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.strategies.settings import SettingsFile


def typical(setups: Sequence[Setup]) -> int:
    """Return the number of the first REC question of the bundled scenes that the unpruned model answers right and on
    which each of the `setups` does what it does on most such questions: right if it is right on more than half of them,
    else wrong. Only questions of the main table count. StopIteration if there is none.

    A setup of the adapted model has its label in the tables, such as "FoPru cls -2 auto, adapted".
    """
    rows = {row.key: row for row in (*measured(MAIN).rows, *trained()) if row.task == "rec"}
    whole = rows[SetupKey(UNPRUNED, "original", 1.0)]
    answers = [[points for points, _ in row.scored_images] for row in (whole, *(rows[setup.key] for setup in setups))]
    known = [pruned for unpruned, *pruned in zip(*answers, strict=True) if unpruned]
    usual = [sum(of_setup) > len(known) / 2 for of_setup in zip(*known, strict=True)]
    every = load_questions(SCENES, ["rec"])
    calibration = frozenset[str]().union(*(calibrated_on(SettingsFile.read(file)) for file in SETTINGS.glob("*.json")))
    asked = limit_questions(without_images(every, calibration, str(SCENES)), MAIN.questions)
    in_order = [scene for split in whole.scores for scene in asked if scene.split == split]
    outcomes = zip(in_order, zip(*answers, strict=True), strict=True)
    first = next(scene for scene, (unpruned, *pruned) in outcomes if unpruned and [*map(bool, pruned)] == usual)
    return every.index(first)

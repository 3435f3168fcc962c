"""The report's sentence about what can be pruned."""

from dataclasses import replace

from helpers.files.rows import row

from tokenprune.evals.report.report import report, verdicts
from tokenprune.evals.storage.results import FAILED

RIGHT, LESS, HALF = [1.0] * 400, [1.0] * 395 + [0.0] * 5, [1.0, 0.0] * 200
BEGIN = "Fewest visual tokens that lose at most 5 points, 95 % interval included, on"
WHOLE = row("unpruned", "original", 1.0, {"": RIGHT})


def test_the_fewest_tokens_that_lose_little_or_else_the_smallest_loss() -> None:
    """Visual tokens a layer count, not keep ratios, and original position IDs alone where both were measured."""
    rows = [
        WHOLE,
        row("Random", "original", 0.25, {"": LESS}),
        row("Random", "compact", 0.1, {"": RIGHT}),
        row("Random", "original", 0.1, {"": HALF}),
        row("FastV", "original", 0.1, {"": RIGHT}, n_mean=35.0),
    ]
    task = [replace(one, task="vqa", scores={"": HALF}) for one in rows[1:]]
    (told,) = verdicts([*rows, replace(WHOLE, task="vqa"), *task])
    rec, vqa = told.split("; ")
    assert rec.startswith(f"{BEGIN} `scenes`: REC, Random at 25 % (25 of 100 a layer, -1.2 [")
    assert vqa.startswith("VQA, none of 3, the closest being Random at 25 % (25 of 100 a layer, -50.0 [")
    assert report(rows).startswith(f"{rec}.\n\n")


def test_few_questions_show_nothing() -> None:
    (told,) = verdicts(
        [row(*key, {"": RIGHT[:20]}) for key in (("unpruned", "original", 1.0), ("Grid", "original", 0.25))]
    )
    assert "REC, none of 1, the closest being Grid at 25 % (25 of 100 a layer, +0.0 [" in told


def test_compact_position_ids_are_named() -> None:
    (told,) = verdicts([WHOLE, row("Grid", "compact", 0.25, {"": RIGHT})])
    assert "REC, Grid at 25 % with compact position IDs (25 of 100 a layer, +0.0 [" in told


def test_nothing_to_compare() -> None:
    pruned = row("Grid", "original", 0.25, {"": RIGHT})
    assert not verdicts([WHOLE])
    assert not verdicts([pruned])
    assert not verdicts([replace(WHOLE, scores={"": [FAILED] * 400}), pruned])
    other = replace(WHOLE, dataset="other")
    assert len(verdicts([WHOLE, pruned, other, replace(pruned, dataset="other")])) == 2

"""The page of a tuning: losses by kind of question."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from helpers.files.tasks import SETS

from tokenprune.evals.reading.records import Base64
from tokenprune.evals.run.setups import Pruned, Setup, make_setups
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tune import confirm, page
from tokenprune.evals.tune.bounds import Loss
from tokenprune.evals.tune.confirm import Tuned
from tokenprune.evals.tune.questions import in_chunks
from tokenprune.evals.tune.scoring import UNPRUNED, ModelScorer
from tokenprune.evals.tune.search import Tried


class AllLost(ModelScorer):
    """Answers that are right only if unpruned."""

    def __init__(self) -> None:
        pass

    def scores(self, setup: Setup, questions: Sequence[Question]) -> list[float]:
        return [float(setup == UNPRUNED)] * len(questions)


def test_a_kind_about_a_single_image_has_no_interval(tmp_path: Path) -> None:
    SETS["own", "published"](tmp_path)
    first, other = TASKS["own"].load(tmp_path)
    questions = [replace(first, id=f"own-{n}", images=(Base64("row", "", f"{n}"),)) for n in range(20)] + [other]
    (setup,) = (one for one in make_setups(["grid"], [0.5], ["original"], []) if isinstance(one, Pruned))
    tried = Tried(setup, 0.5, Loss.of([0.0] * 8, [1.0] * 8, range(8)), 0.0, True)
    _, _, *lines = page._by_kind([tried], AllLost(), in_chunks(questions)).splitlines()
    assert lines == [
        "| all | 21 | 100.0 | -100.0 [-100.0, -83.9] |",
        "| own: names | 20 | 100.0 | -100.0 [-100.0, -83.2] |",
        "| own: other | 1 | 100.0 | -100.0 |",
    ]


def test_only_what_passed_is_a_runner_up() -> None:
    """Neither what failed nor what was not tested was shown to stay within the bound."""
    loss = Loss.of([1.0] * 90, [1.0] * 90, range(90))
    setups = [one for one in make_setups(["grid"], [0.5, 0.4, 0.3, 0.2], ["original"], []) if isinstance(one, Pruned)]
    tried = [Tried(one, one.keep_ratio, loss, 0.5, True) for one in setups]
    safe, best, failed = (confirm.Tested(one, loss, n < 2) for n, one in enumerate(tried[:3]))
    about = page.About("llava", "data", 4.0, "flops", "accuracy", 90, {})
    for passed, said in (([safe, best], True), ([best], False)):
        tuned = Tuned(True, best.tried, Path("settings.json"), Path("tuned.md"), [*passed, failed], tried[::-1])
        told = "\n".join(page._next_steps(tuned, about))
        assert ("Runner-up: **Grid --keep-ratio 0.5**, 50 %, which lost 0.0 points" in told) == said
        assert told.count("Runner-up") == said

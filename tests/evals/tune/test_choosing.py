"""Which settings get more questions, which are tested on fresh ones in which order, and the page about them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from helpers.files.tasks import SETS

from tokenprune.evals.reading.records import Base64
from tokenprune.evals.run.setups import Pruned, Setup, make_setups
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.short_answers import ShortAnswer, exact
from tokenprune.evals.tune import confirm, page
from tokenprune.evals.tune.bounds import Loss
from tokenprune.evals.tune.confirm import MOST, Tuned, expected_saving, sequence
from tokenprune.evals.tune.questions import Half, in_chunks
from tokenprune.evals.tune.scoring import UNPRUNED, ModelScorer
from tokenprune.evals.tune.search import SearchPlan, Tried, completed, halved

LOSS = Loss.of([1.0] * 8, [1.0] * 8, range(8))


def tried(cost: float, assurance: float, *, complete: bool = True) -> Tried:
    (setup,) = (one for one in make_setups(["grid"], [0.5], ["original"], []) if isinstance(one, Pruned))
    return Tried(setup, cost, LOSS, assurance, complete)


def costs(*some: Tried) -> list[float]:
    return [one.cost for one in sequence(some)]


def test_a_small_saving_is_not_worth_the_risk() -> None:
    assert costs(tried(0.64, 0.7), tried(0.78, 0.8), tried(0.8, 0.95)) == [0.8, 0.64]
    assert costs(tried(0.64, 0.7), tried(0.78, 0.95), tried(0.8, 0.95)) == [0.78, 0.64]


def test_a_safe_setting_comes_before_a_risky_one() -> None:
    assert costs(tried(0.3, 0.5), tried(0.5, 1.0)) == [0.5, 0.3]
    assert costs(tried(0.3, 0.99), tried(0.5, 0.98)) == [0.3]  # no saving, and less likely to pass


def test_what_is_unlikely_to_pass_is_tested_only_if_nothing_else_is_left() -> None:
    assert costs(tried(0.5, 0.9), tried(0.1, 0.05)) == [0.5]
    assert costs(tried(0.5, 0.06), tried(0.1, 0.05)) == [0.5]
    assert costs(tried(0.5, 0.0)) == [0.5]
    assert costs(tried(0.5, 1.0, complete=False), tried(1.1, 1.0)) == []


def test_few_are_tested() -> None:
    many = [tried(1 - number / 15, 1 - (number / 15) ** 3) for number in range(1, 15)]
    assert len(costs(*many)) == MOST
    assert expected_saving(sequence(many)) < max(expected_saving(some) for some in combinations(many, MOST + 1))


def test_the_expected_saving() -> None:
    assert expected_saving([tried(0.8, 0.5), tried(0.6, 0.5)]) == pytest.approx(0.5 * 0.2 + 0.25 * 0.2)
    assert expected_saving([]) == 0


# Which settings get more questions.


N = 320


class Losing:
    """Loses a given share of each setup's questions, evenly spread, and counts the questions of each."""

    def __init__(self, lost: dict[str, float]) -> None:
        self.lost, self.asked = lost, dict.fromkeys(lost, 0)

    def ask(self, setups: Sequence[Setup], half: Half) -> None:
        for setup in setups:
            self.asked[setup.key.strategy] = len(half.questions)

    def scores(self, setup: Setup, questions: Sequence[Question]) -> list[float]:
        if setup is UNPRUNED:
            return [1.0] * len(questions)
        share = self.lost[setup.key.strategy]
        return [float(int(share * (n + 1)) == int(share * n)) for n in range(len(questions))]


def asked(lost: Sequence[float], *, leaders: bool = False) -> list[int]:
    """Return how many questions each setup was asked; the first costs least. leaders: the leading ones are then asked
    the rest."""
    names = ["fopru", "mosaic", "visionzip", "scope", "holov", "nuwa", "divprune", "par"][: len(lost)]
    setups = [setup for setup in make_setups(names, [0.5], ["original"], []) if isinstance(setup, Pruned)]
    costs = {setup.key: 0.2 + 0.1 * number for number, setup in enumerate(setups)}
    scorer = Losing(dict(zip([setup.key.strategy for setup in setups], lost, strict=True)))
    half = in_chunks(
        [
            ShortAnswer(task="own", id=name, images=(Base64("row", "", name),), text="?", answers=("x",), worth=exact)
            for name in map(str, range(N))
        ]
    )
    plan = SearchPlan(5.0, 1, len(setups), N)
    tried = list(halved(setups, costs, plan, half, scorer).values())
    if leaders:
        tried = completed(tried, plan, half, scorer)
        assert [one.value for one in tried] == sorted((one.value for one in tried), reverse=True)
        assert {one.setup.key.strategy for one in tried if one.complete} == {
            name for name, n in scorer.asked.items() if n == N
        }
    assert sum(scorer.asked.values()) <= plan.n_answers(half)
    return list(scorer.asked.values())


def test_the_better_half_goes_on() -> None:
    assert sorted(asked([0.0] * 8)) == [48, 48, 48, 48, 80, 80, 160, 320]
    assert asked([0.0] * 8)[0] == 320  # if nothing is lost, cheaper is better


def test_hopeless_settings_are_not_asked_again() -> None:
    assert asked([0.5, 0.5, 0.5, 0.0]) == [48, 48, 48, 320]
    found = asked([0.5, 0.5, 0.4, 0.5])
    assert sorted(found) == [48, 48, 48, 320]  # the best of the rest, so that there is a result
    assert found[2] == 320


def test_the_leaders_are_asked_everything() -> None:
    assert asked([0.0] * 8, leaders=True)[:3] == [320] * 3
    assert sorted(asked([0.0] * 8, leaders=True)) == [48, 48, 48, 48, 80, 320, 320, 320]
    assert asked([0.5, 0.5, 0.5, 0.0], leaders=True) == [48, 48, 48, 320]  # hopeless settings do not lead


# The page of a tuning: losses by kind of question.


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

"""Which settings get more questions."""

from collections.abc import Sequence

from tokenprune.evals.reading.records import Base64
from tokenprune.evals.run.setups import Pruned, Setup, make_setups
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.short_answers import ShortAnswer, exact
from tokenprune.evals.tune.questions import Half, in_chunks
from tokenprune.evals.tune.scoring import UNPRUNED
from tokenprune.evals.tune.search import SearchPlan, completed, halved

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

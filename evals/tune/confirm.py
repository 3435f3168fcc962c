"""Test the best settings of a search on questions that it never saw.

Several settings are tested in a fixed order, the safest first, each at the full 95 %, until one fails. Those that
passed are guaranteed: the probability that a setting passes although its true loss is above the margin is at most 5 %,
however many are tested, because the order was fixed in advance (fixed-sequence testing, as in Learn then Test,
https://arxiv.org/abs/2110.01052, and Pareto Testing, https://arxiv.org/abs/2210.07913).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from tokenprune.evals.tune.bounds import Loss
from tokenprune.evals.tune.questions import Half
from tokenprune.evals.tune.scoring import UNPRUNED, Scorer
from tokenprune.evals.tune.search import Tried, loss_on
from tokenprune.strategy import Strategy

#: The most settings that are tested.
MOST = 5
#: A setting that is less likely to pass is not worth its questions, unless it is the only one.
LEAST_ASSURANCE = 0.1


@dataclass(frozen=True)
class Tested:
    """A setting, what the search knew about it, and its loss on fresh questions."""

    tried: Tried
    loss: Loss
    passed: bool


@dataclass(frozen=True)
class Tuned:
    """The result of a tuning.

    passed: whether the loss of `best` is at most the margin with 95 % confidence, on questions that the search never
        saw. If False, no setting passed, and `best` is the most promising.
    best: None if every setting costs more than the unpruned model.
    settings: the file that holds it: `settings.json`, or `unproven.json`, which `patch` and commands refuse, unless
        `:unproven` follows its path.
    tested: the settings that were tested on fresh questions, in that order. tried: all settings, the best first.
    verdict: all of this in one paragraph of Markdown, which opens the page.
    """

    passed: bool
    best: Tried | None
    settings: Path | None
    page: Path
    tested: Sequence[Tested]
    tried: Sequence[Tried]
    verdict: str = ""

    @property
    def strategy(self) -> Strategy | None:
        return None if self.best is None else self.best.setup.strategy


def sequence(tried: Sequence[Tried]) -> list[Tried]:
    """The settings to test, the most likely to pass first; each saves more than the one before. The sequence with the
    highest expected saving is chosen: a small further saving is not worth the risk of ending the sequence. If none is
    likely to pass, the setting that comes closest."""
    complete = [setting for setting in tried if setting.complete and setting.cost < 1]
    complete.sort(key=lambda setting: (-setting.assurance, setting.loss.upper, setting.cost))
    front: list[Tried] = []
    for setting in complete:
        if not front or setting.cost < front[-1].cost:
            front.append(setting)
    likely = [setting for setting in front if setting.assurance >= LEAST_ASSURANCE] or front[:1]
    sequences = (some for n in range(1, MOST + 1) for some in combinations(likely, n))
    return list(max(sequences, key=expected_saving, default=()))


def expected_saving(order: Sequence[Tried]) -> float:
    """The expected share of the unpruned model's cost saved by the last setting that passes, if each passes with its
    assurance, independently of the others."""
    saving, passing, cost = 0.0, 1.0, 1.0
    for setting in order:
        passing *= setting.assurance
        saving += passing * (cost - setting.cost)
        cost = setting.cost
    return saving


def confirm(
    order: Sequence[Tried], fresh: Half, scorer: Scorer, margin: float, say: Callable[[str], None] = lambda line: None
) -> list[Tested]:
    """Test the settings on the fresh half in this order, up to the first that does not pass."""
    if order:
        scorer.ask([UNPRUNED], fresh)
    tested: list[Tested] = []
    for number, setting in enumerate(order, start=1):
        say(f"test {number} of at most {len(order)}")
        scorer.ask([setting.setup], fresh)
        loss = loss_on(scorer, setting.setup, fresh)
        tested.append(Tested(setting, loss, loss.passes(margin)))
        if not tested[-1].passed:
            break
    return tested

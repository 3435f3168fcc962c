"""Search settings in generations, each of which is halved repeatedly.

Optuna's tree-structured Parzen estimator proposes the settings of a generation from earlier ones (the first is spread
over all strategies). All of them are asked a few questions, the better half more, and so on, until the last eighth has
been asked every question of the first half. This is successive halving (https://arxiv.org/abs/1502.07943). Settings
that are almost certain to fail the test are dropped sooner. What looked best on few questions often looks worse on
more, so in the end the leaders of all generations are asked the rest: only a setting that was asked everything is
tested.

Settings are compared by their expected saving: what they save, times the probability, given the answers so far, that a
test on fresh questions will pass. Without the probability, the cheapest lucky setting would win; without the saving,
the unpruned model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from tokenprune.evals.run.setups import Pruned
from tokenprune.evals.search.journal import finished, sampler_seed
from tokenprune.evals.storage.answers import SetupKey
from tokenprune.evals.tune.bounds import Loss
from tokenprune.evals.tune.costs import CostMeter
from tokenprune.evals.tune.questions import Half
from tokenprune.evals.tune.scoring import UNPRUNED, Scorer
from tokenprune.evals.tune.space import N_TRIES, Params, Space

#: The shares of the first half that are asked, and the divisor of the generation for each.
RUNGS = ((1 / 8, 1), (1 / 4, 2), (1 / 2, 4), (1.0, 8))
#: A first rung with fewer questions is uninformative.
LEAST_QUESTIONS = 24
#: A setting less likely to pass is asked no more, unless it is the best one left.
HOPELESS = 0.001
#: How many of the highest-valued settings must have been asked everything, and how many at most are asked the rest.
LEADERS, COMPLETED = 3, 6


@dataclass(frozen=True)
class Tried:
    """A setting and what is known about it.

    cost: relative to the unpruned model. loss: on the questions it was asked.
    complete: whether it was asked all questions of the half.
    assurance: the probability, given these answers, that a test on fresh questions passes.
    """

    setup: Pruned
    cost: float
    loss: Loss
    assurance: float
    complete: bool

    @property
    def value(self) -> float:
        """The expected saving; the unpruned model's is 0."""
        return (1 - self.cost) * self.assurance


@dataclass(frozen=True)
class SearchPlan:
    """generations, size: how many rounds of settings are tried, and how many settings per round. n_fresh: how many
    questions the test will have."""

    margin: float
    generations: int
    size: int
    n_fresh: int
    seed: int = 0

    def n_answers(self, half: Half) -> int:
        """The most answers that a search asks for, without the unpruned model's."""
        asked, before = 0, 0
        for share, part in RUNGS:
            n = len(rung(half, share).questions)
            asked += -(-self.size // part) * (n - before)
            before = n
        first, last = (len(rung(half, RUNGS[place][0]).questions) for place in (0, -1))
        return self.generations * asked + COMPLETED * (last - first)


def rung(half: Half, share: float) -> Half:
    return half.first(max(LEAST_QUESTIONS, round(share * len(half.questions))))


def search(
    study: optuna.Study,
    space: Space,
    plan: SearchPlan,
    half: Half,
    scorer: Scorer,
    meter: CostMeter,
    say: Callable[[str], None] = lambda line: None,
) -> list[Tried]:
    """Return every setting that was tried, those with the highest value first.

    study: holds proposals and outcomes; a killed search resumes in its last generation.
    """
    scorer.ask([UNPRUNED], half)
    tried: list[Tried] = []
    n_done = len(finished(study))
    for number in range(plan.generations):
        say(f"generation {number + 1} of {plan.generations}")
        name = f"generation {number}"
        if name not in study.user_attrs:
            known = {trial.setup.key for trial in tried}
            study.set_user_attr(name, _proposals(study, space, plan, number, meter, known))
        proposed = study.user_attrs[name]
        setups = [_setup(space, proposal["params"]) for proposal in proposed]
        costs = {setup.key: proposal["cost"] for setup, proposal in zip(setups, proposed, strict=True)}
        outcomes = halved(setups, costs, plan, half, scorer)
        for proposal, setup in list(zip(proposed, setups, strict=True))[max(0, n_done - len(tried)) :]:
            study.add_trial(
                optuna.create_trial(
                    params=proposal["params"],
                    distributions=_distributions(space, proposal["params"]),
                    value=outcomes[setup.key].value,
                )
            )
        tried += outcomes.values()
    say("the most promising settings")
    return completed(tried, plan, half, scorer)


def completed(tried: Sequence[Tried], plan: SearchPlan, half: Half, scorer: Scorer) -> list[Tried]:
    """Return the settings, highest value first, after asking the leaders everything."""
    ranked = sorted(tried, key=_rank)
    for _ in range(COMPLETED):
        leader = next(
            (candidate for candidate in ranked[:LEADERS] if not candidate.complete and candidate.assurance >= HOPELESS),
            None,
        )
        if leader is None:
            break
        scorer.ask([leader.setup], half)
        ranked.remove(leader)
        ranked.append(assess(scorer, leader.setup, leader.cost, half, plan, complete=True))
        ranked.sort(key=_rank)
    return ranked


def _rank(tried: Tried) -> tuple[float, float]:
    return -tried.value, tried.cost


def halved(
    setups: Sequence[Pruned], costs: Mapping[SetupKey, float], plan: SearchPlan, half: Half, scorer: Scorer
) -> dict[SetupKey, Tried]:
    """Return what is known of each setup after its last rung."""
    outcomes: dict[SetupKey, Tried] = {}
    still = list(setups)
    for share, part in RUNGS:
        asked = rung(half, share)
        still = still[: -(-len(setups) // part)]
        scorer.ask(still, asked)
        for setup in still:
            outcomes[setup.key] = assess(scorer, setup, costs[setup.key], asked, plan, share == 1)
        still.sort(key=lambda setup: (-outcomes[setup.key].value, outcomes[setup.key].loss.points))
        still = still[:1] + [setup for setup in still[1:] if outcomes[setup.key].assurance >= HOPELESS]
    return outcomes


def assess(scorer: Scorer, setup: Pruned, cost: float, asked: Half, plan: SearchPlan, complete: bool) -> Tried:
    """What the answers to the questions of `asked` say about a setup."""
    loss = loss_on(scorer, setup, asked)
    return Tried(setup, cost, loss, loss.assurance(plan.margin, plan.n_fresh), complete)


def loss_on(scorer: Scorer, setup: Pruned, asked: Half) -> Loss:
    questions = asked.questions
    return Loss.of(scorer.scores(setup, questions), scorer.scores(UNPRUNED, questions), asked.images)


def _proposals(
    study: optuna.Study, space: Space, plan: SearchPlan, number: int, meter: CostMeter, known: set[SetupKey]
) -> list[dict[str, Any]]:
    """Return new settings and their costs. Nothing is written to the study, so a killed process leaves no partial
    proposals, and the next makes the same ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = TPESampler(
            seed=sampler_seed(plan.seed, number),
            n_startup_trials=plan.size,
            multivariate=True,
            group=True,
            constant_liar=True,
        )
    drawing = optuna.create_study(direction="maximize", sampler=sampler)
    drawing.add_trials(finished(study))
    trials: list[dict[str, Any]] = []
    seen = set(known)
    for turn in range(plan.size * N_TRIES):
        if len(trials) == plan.size:
            break
        if number == 0 and turn < plan.size:
            drawing.enqueue_trial(space.start(turn))
        trial = drawing.ask()
        setup = space.suggest(trial)
        if setup is None or setup.key in seen:
            drawing.tell(trial, state=TrialState.FAIL)
            continue
        seen.add(setup.key)
        trials.append({"params": dict(trial.params), "cost": meter.relative(setup)})
    return trials


def _setup(space: Space, params: Params) -> Pruned:
    """The setup of proposed parameters."""
    setup = space.suggest(optuna.trial.FixedTrial(params))
    assert setup is not None  # it was valid when proposed for the same model
    return setup


def _distributions(space: Space, params: Params) -> dict[str, BaseDistribution]:
    low, high = space.keep_ratios
    text = params["strategy"]
    choices = {f"{text} {name}": CategoricalDistribution(values) for name, values in space.choices(text).items()}
    return {
        "strategy": CategoricalDistribution(space.possible),
        "keep_ratio": FloatDistribution(low, high),
        **choices,
    }

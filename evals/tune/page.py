"""One page in Markdown: what to set, how certain that is, and the loss by kind of question."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from tokenprune.evals.report.table import NOTHING, Table
from tokenprune.evals.stats import paired
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tune.bounds import Loss
from tokenprune.evals.tune.confirm import Tuned
from tokenprune.evals.tune.questions import Half
from tokenprune.evals.tune.scoring import UNPRUNED, Measure, ModelScorer
from tokenprune.evals.tune.search import Tried
from tokenprune.strategies.settings import UNPROVEN

#: Kinds with fewer questions are combined.
LEAST = 20
OTHER = "other"
COST_NAMES = {"flops": "prefill operations", "kv": "KV cache", "ttft": "time to the first token"}
SCORES: dict[Measure, str] = {
    "accuracy": "accuracy",
    "agreement": "agreement with the unpruned model's answers",
    "overlap": "overlap of the first token's distribution with the unpruned model's",
}
#: The meaning of a point of each score.
POINTS: dict[Measure, str] = {
    "accuracy": "A point is one fewer right answer in 100 questions.",
    "agreement": "A point is one answer in 100 that differs from the unpruned model's, right or wrong.",
    "overlap": (
        "A point is a total variation distance of 0.01 between the distributions of the answer's first token, pruned "
        "and unpruned, averaged over the questions: of 100 first tokens drawn at random, one would differ. Later "
        "tokens are not compared."
    ),
}


@dataclass(frozen=True)
class About:
    """What was requested.

    n_searched: questions of the first half. refused: omitted strategies, and why. loaded_from: what to type
    after --model, if that is not `model`, the name in results.
    """

    model: str
    data: str
    max_loss: float
    cost: str
    measure: Measure
    n_searched: int
    refused: Mapping[str, str]
    loaded_from: str = ""

    @property
    def score(self) -> str:
        return SCORES[self.measure]


def write(tuned: Tuned, about: About, scorer: ModelScorer, fresh: Half, plot: str) -> str:
    """Return the page."""
    parts = [f"# What to set for {about.model}", tuned.verdict, *_next_steps(tuned, about)]
    shown = [tested.tried for tested in tuned.tested if tested.passed] or [tested.tried for tested in tuned.tested]
    if shown:
        names = "`, then `".join(_setting(tried) for tried in shown[-2:][::-1])
        told = f"On the fresh questions, unpruned and with `{names}`, with a 95 % interval of each line by itself:"
        parts += ["## By kind of question", told]
        parts.append(_by_kind(shown[-2:][::-1], scorer, fresh))
    parts += ["## What was tried", f"![Loss against cost]({plot})", *_method(tuned, about)]
    return "\n\n".join(parts) + "\n"


def verdict(tuned: Tuned, about: About) -> str:
    """What was found, in one paragraph."""
    if tuned.best is None:
        return "**Leave it unpruned**: every setting that was tried costs more than the unpruned model."
    best, loss = tuned.best, next(tested.loss for tested in tuned.tested if tested.tried is tuned.best)
    if tuned.passed:
        return (
            f"**{_setting(best)}** costs {_percent(best.cost)} of the unpruned model's {COST_NAMES[about.cost]} and "
            f"loses at most {_points(about.max_loss)} of {about.score}: it {_lost(loss)} that the search never saw, "
            f"and at most {loss.upper:.1f} with 95 % confidence."
        )
    return (
        f"**No setting was shown to lose at most {_points(about.max_loss)} of {about.score}.** The most promising "
        f"one is **{_setting(best)}**, which costs {_percent(best.cost)} of the unpruned model's "
        f"{COST_NAMES[about.cost]}: it {_lost(loss)}, but up to {loss.upper:.1f} with 95 % confidence. "
        f"{_needed(loss, about.max_loss)} `patch` and commands refuse its file, unless `{UNPROVEN}` follows its path."
    )


def _next_steps(tuned: Tuned, about: About) -> list[str]:
    """What to type, and the setting to try instead."""
    if tuned.best is None:
        return []
    best = tuned.best
    path = f"{tuned.settings}{'' if tuned.passed else UNPROVEN}"
    model = quote(about.loaded_from or about.model)
    lines = [
        f"With DIR, a folder of questions about other images:\n\n```sh\ntokenprune eval --model {model} --data DIR "
        f"--strategy {quote(path)} --keep-ratio {float(best.setup.keep_ratio)!r}\n```"
    ]
    if tuned.passed:
        lines.append(f'```python\ntokenprune.patch(model, "{path}")\n```')
    second = next((tested for tested in tuned.tested[::-1] if tested.passed and tested.tried is not best), None)
    if second is not None:
        lines.append(
            f"Runner-up: **{_setting(second.tried)}**, {_percent(second.tried.cost)}, which {_lost(second.loss)}, and "
            f"at most {second.loss.upper:.1f} with 95 % confidence; it also passed the test."
        )
    return lines


def _needed(loss: Loss, margin: float) -> str:
    needed = loss.questions_needed(margin)
    if needed is None:
        return "It loses more than that, so more questions would not help: allow a larger loss."
    return (
        f"If its true loss is {loss.points:.1f} points, a test on about {needed:,} fresh questions would show it, so "
        f"about {2 * needed:,} questions in all."
    )


def _by_kind(shown: Sequence[Tried], scorer: ModelScorer, fresh: Half) -> str:
    questions, numbers = fresh.questions, fresh.images
    named = kinds(questions)
    base = scorer.scores(UNPRUNED, questions)
    own = [scorer.scores(tried.setup, questions) for tried in shown]
    lines = []
    for kind, count in [("all", len(questions)), *Counter(named).most_common()]:
        at = [place for place, name in enumerate(named) if kind in ("all", name)]
        cells = [kind, str(count), f"{100 * math.fsum(base[place] for place in at) / count:.1f}"]
        for scores in own:
            pair = paired([scores[i] for i in at], [base[i] for i in at], [numbers[i] for i in at])
            low, high = (100 * bound for bound in pair.interval)
            interval = f" [{low:+.1f}, {high:+.1f}]" if math.isfinite(low) else ""  # a single image gives none
            cells.append(f"{100 * pair.difference:+.1f}{interval}")
        lines.append(cells)
    return str(Table(["kind", "n", "unpruned, %", *(f"`{_setting(tried)}`, points gained" for tried in shown)], lines))


def kinds(questions: Sequence[Question]) -> list[str]:
    """Name each question's kind: its task, with the set's own category or else the first two words; a task's rare kinds
    are combined."""
    full = [(question.task, question.category or " ".join(question.text.lower().split()[:2])) for question in questions]
    counts = Counter(full)
    return [f"{task}: {kind if counts[task, kind] >= LEAST else OTHER}" for task, kind in full]


def _method(tuned: Tuned, about: About) -> list[str]:
    n_complete = sum(tried.complete for tried in tuned.tried)
    lines = [
        f"Settings tried: {len(tuned.tried)}, each on the first few of {about.n_searched} questions; on all of them: "
        f"{n_complete}. Those in the table were then tested on other questions, in this order, the safest first, until "
        f"one failed. This is a paired non-inferiority test at 95 %: the bound of a BCa bootstrap over images, never "
        f"below one for what other images may lose. Because the order was fixed in advance, testing several does not "
        f"weaken the guarantee, which holds for questions like these and no others. {POINTS[about.measure]}"
    ]
    rows = [
        [
            f"`{_setting(tested.tried)}`",
            _percent(tested.tried.cost),
            f"{tested.loss.points:.1f}",
            f"{tested.loss.upper:.1f}",
            str(tested.loss.n),
            "passed" if tested.passed else "failed",
            NOTHING if (needed := tested.loss.questions_needed(about.max_loss)) is None else f"{needed:,}",
        ]
        for tested in tuned.tested
    ]
    if rows:
        head = ["setting", "cost", "points lost", "at most (95 %)", "n", "test", "n for 80 % power"]
        lines.append(str(Table(head, rows)))
    lines += [f"Left out: {text}: {why}" for text, why in about.refused.items()]
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(count: float) -> str:
    return f"{count:g} point{'' if count == 1 else 's'}"


def _lost(loss: Loss) -> str:
    shown = f"{abs(loss.points):.1f}"
    return f"{'gained' if loss.points < 0 and float(shown) else 'lost'} {shown} points on {loss.n} questions"


def _setting(tried: Tried) -> str:
    return f"{tried.setup.label} --keep-ratio {tried.setup.keep_ratio:g}"

"""Draw the scenes of a set and choose the questions about them, so that guessing does not pay."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenprune.evals.dev.train.release.plans import SetPlan
from tokenprune.evals.dev.train.scenes.ask import Question, rec_questions, vqa_questions
from tokenprune.evals.dev.train.scenes.assets import Assets
from tokenprune.evals.dev.train.scenes.draw import MOST_ASKED, Scene, draw_scene
from tokenprune.evals.dev.train.vocabulary.nouns import Noun, nouns

SEED = 20261126
#: Folders of emoji that the sets cannot use because of their licence (CC-BY-SA-4.0).
SHARE_ALIKE = ("openmoji", "emojione1")


@dataclass(frozen=True)
class Asked:
    scene: Scene
    vqa: list[Question]
    rec: list[Question]


def draw_set(plan: SetPlan, split: str, assets: Assets, seed: int = SEED) -> Iterator[Asked]:
    """Yield the images of a split, each with its questions. Scenes about which the set has nothing to ask are left out.

    `assets` are those of the split. The same plan and seed give the same images.
    """
    used: Counter[object] = Counter()
    rest, number = plan.images[split], 0
    while rest:
        rng = random.Random(f"{seed} {plan.name} {split} {number}")
        scene = draw_scene(rng, assets, plan.shape, MOST_ASKED, plan.scene, odd=False)
        rec = [question for question in rec_questions(scene) if question.kind in plan.rec]
        vqa = choose(rng, _candidates(rng, scene, nouns(), plan.vqa), plan.asked, used)
        number += 1
        if rec or vqa:
            rest -= 1
            yield Asked(scene, vqa, rec)


def choose(rng: random.Random, questions: Sequence[Question], number: int, used: Counter[object]) -> list[Question]:
    """Return up to `number` questions, each of the kind asked least so far and with the least frequent answer.

    `used` counts what has been chosen, and is updated.
    """
    rest, chosen = list(questions), []
    rng.shuffle(rest)
    while rest and len(chosen) < number:
        best = min(rest, key=lambda question: (used[question.kind], used[question.kind, answer_class(question.answer)]))
        rest = [question for question in rest if question.text != best.text]
        used.update([best.kind, (best.kind, answer_class(best.answer))])
        chosen.append(best)
    return chosen


def answer_class(answer: str) -> str:
    """Return an answer that many questions share unchanged, and one common word for all nouns and words of signs."""
    shared = {"yes", "no", *"123456", *_COLORS}
    return answer if answer in shared else "a word"


_COLORS = ("black", "white", "gray", "brown", "red", "orange", "yellow", "green", "blue", "purple", "pink")


def _candidates(
    rng: random.Random, scene: Scene, known: tuple[Noun, ...], kinds: Sequence[str], draws: int = 3
) -> list[Question]:
    """Return the questions of several draws, since each draw asks about only a few of the scene's things."""
    drawn = [question for _ in range(draws) for question in vqa_questions(rng, scene, known) if question.kind in kinds]
    return list({question.text: question for question in drawn}.values())

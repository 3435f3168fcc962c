"""Questions that the unpruned model answers better than a pruned one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor

from tokenprune.evals.models.boxes import Size
from tokenprune.evals.models.image_view import ImageView, full_view, view_through
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.reading.allowed import allowed, allowing
from tokenprune.evals.run.downsample import at_size
from tokenprune.evals.run.questions import load_questions
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.answers import Answer, AnswerKey, SetupKey
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.question import Question


@dataclass(frozen=True)
class Loss:
    """One question's answers, unpruned and under one setup. run: the folder that they are in."""

    unpruned: Answer
    pruned: Answer
    run: str = ""

    @property
    def question(self) -> tuple[str, str, str]:
        """What identifies the question: another run's may have its task and ID."""
        return self.run, self.pruned.task, self.pruned.id

    @property
    def points(self) -> float:
        return (self.unpruned.score or 0.0) - (self.pruned.score or 0.0)


@dataclass(frozen=True)
class Asked:
    """A question as a run asked it. view: the part of an image of a given size that its model saw."""

    question: Question
    view: Callable[[Size], ImageView] = full_view


def worst(answers: Mapping[AnswerKey, Answer], n: int) -> list[Loss]:
    """Return the `n` worst losses of each setup on each task.

    Ties are broken in favour of questions that most setups lose, so that setups can be compared on them. Failed
    questions do not count.
    """
    losses: dict[tuple[str, SetupKey], list[Loss]] = {}
    for asked, answer in answers.items():
        unpruned = answers.get(asked._replace(key=SetupKey(UNPRUNED, "original", 1.0)))
        if unpruned is not None and unpruned.error is None and answer.error is None:
            loss = Loss(unpruned, answer)
            if loss.points > 0:
                losses.setdefault((asked.task, asked.key), []).append(loss)
    lost_by: dict[tuple[str, str], int] = {}
    for of_setup in losses.values():
        for loss in of_setup:
            question = loss.pruned.task, loss.pruned.id
            lost_by[question] = lost_by.get(question, 0) + 1

    def badness(loss: Loss) -> tuple[float, int, str]:
        return -loss.points, -lost_by[loss.pruned.task, loss.pruned.id], loss.pruned.id

    return [loss for of_setup in losses.values() for loss in sorted(of_setup, key=badness)[:n]]


def questions_of(run: RunFolder, losses: Sequence[Loss]) -> dict[tuple[str, str, str], Asked]:
    """Return the questions of this run's losses, from where it had its data and its model's processor.

    Raises OSError or ValueError if they are gone.
    """
    if not losses:
        return {}
    about, identity = run.record["about"], run.record["identity"]
    config: Any = AutoConfig.from_pretrained(about["loaded_from"])
    processor: Any = AutoProcessor.from_pretrained(about["loaded_from"])
    style = style_of(config, processor)
    if "image_size" in identity:
        style = replace(style, view=view_through(at_size(processor, *identity["image_size"])))
    tasks = list(dict.fromkeys(loss.pruned.task for loss in losses))
    wanted, now = {loss.question for loss in losses}, allowed()
    with allowing(now.image_roots, now.max_image_pixels, about.get("frames", now.frames)):  # as many as were read
        questions = load_questions(Path(about["data"]), tasks, split=identity["data"]["split"], style=style)
    named = {(str(run.path), one.task, one.id): Asked(one, style.view) for one in questions}
    return {name: one for name, one in named.items() if name in wanted}

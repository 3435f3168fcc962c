"""Questions that the unpruned model answers better than a pruned one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor

from tokenprune.evals.boxes import Size
from tokenprune.evals.models.image_view import ImageView, full_view
from tokenprune.evals.models.loading import named
from tokenprune.evals.models.prompt_styles import style_of
from tokenprune.evals.reading import fields
from tokenprune.evals.reading.allowed import allowed, allowing
from tokenprune.evals.run.downsample import as_asked
from tokenprune.evals.run.questions import load_questions, place_of
from tokenprune.evals.run.setups import UNPRUNED
from tokenprune.evals.storage.answers import Answer, AnswerKey, SetupKey
from tokenprune.evals.storage.identity import check_same
from tokenprune.evals.storage.provenance import tasks_identity
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question


@dataclass(frozen=True)
class Regression:
    """One question's answers, unpruned and, with a lower score, under one setup. run: the folder they are in."""

    unpruned: Answer
    pruned: Answer
    run: str = ""

    @property
    def question(self) -> tuple[str, str, str]:
        """What identifies the question: one in another run may have the same task and ID."""
        return self.run, self.pruned.task, self.pruned.id

    @property
    def points(self) -> float:
        return (self.unpruned.score or 0.0) - (self.pruned.score or 0.0)


@dataclass(frozen=True)
class AskedQuestion:
    """A question as a run asked it. view: the part of an image of a given size that the run's model saw."""

    question: Question
    view: Callable[[Size], ImageView] = full_view


def worst_regressions(answers: Mapping[AnswerKey, Answer], n: int) -> list[Regression]:
    """Return the `n` worst regressions of each setup on each task.

    Ties are broken in favour of questions that most setups lose, so that setups can be compared on them. Failed
    questions do not count.
    """
    regressions: dict[tuple[str, SetupKey], list[Regression]] = {}
    for asked, answer in answers.items():
        unpruned = answers.get(asked._replace(key=SetupKey(UNPRUNED, "original", 1.0)))
        if unpruned is not None and unpruned.error is None and answer.error is None:
            regression = Regression(unpruned, answer)
            if regression.points > 0:
                regressions.setdefault((asked.task, asked.key), []).append(regression)
    lost_by: dict[tuple[str, str], int] = {}
    for of_setup in regressions.values():
        for regression in of_setup:
            question = regression.pruned.task, regression.pruned.id
            lost_by[question] = lost_by.get(question, 0) + 1

    def severity(regression: Regression) -> tuple[float, int, str]:
        return -regression.points, -lost_by[regression.pruned.task, regression.pruned.id], regression.pruned.id

    return [regression for of_setup in regressions.values() for regression in sorted(of_setup, key=severity)[:n]]


def questions_of(run: RunFolder, regressions: Sequence[Regression]) -> dict[tuple[str, str, str], AskedQuestion]:
    """Return the questions of this run's regressions, from the locations of its data and its model's processor.

    Raises OSError or ValueError if they are gone, or not the ones that were asked.
    """
    if not regressions:
        return {}
    about, identity, where = run.record["about"], run.record["identity"], f"{run.path / 'run.json'}, 'about'"
    source = fields.text(about, "loaded_from", where)
    with named(source, "processor"):
        config: Any = AutoConfig.from_pretrained(source, trust_remote_code=False)  # None would ask on the terminal
        processor: Any = AutoProcessor.from_pretrained(source)
    style = style_of(config, as_asked(processor, identity.get("image_size"), "pad" in identity))
    tasks = list(dict.fromkeys(regression.pruned.task for regression in regressions))
    wanted, now = {regression.question for regression in regressions}, allowed()
    frames = fields.integer(about, "frames", where) if "frames" in about else now.frames  # the number that was read
    data, of_set = Path(fields.text(about, "data", where)), identity["data"]
    split = None if of_set.get("split") is None else fields.text(of_set, "split", where)
    with allowing(now.image_roots, now.max_image_pixels, frames):
        questions = load_questions(data, tasks, split=split, style=style)
        _check_unchanged(run, tasks, questions, data)
    asked = {(str(run.path), question.task, question.id): AskedQuestion(question, style.view) for question in questions}
    return {name: question for name, question in asked.items() if name in wanted}


def _check_unchanged(run: RunFolder, tasks: Sequence[str], questions: Sequence[Question], data: Path) -> None:
    """Raise SettingError if questions were edited since the run, which may have asked something else under an ID. The
    run.json of an older run may have fewer digests of them."""
    asked = {(answer.task, answer.id) for answer in run.answers()}
    repeated = [question for question in questions if question.key in asked]
    now, then = tasks_identity(repeated), run.record["identity"]["data"]
    for task in tasks:
        known = fields.as_object(then.get(task, {}), f"{run.path / 'run.json'}, {task!r}")
        known_now = now.get(task, {"questions": 0})
        check_same(
            {task: known},
            {task: {name: value for name, value in known_now.items() if name in known}},
            f"{' and '.join(map(str, TASKS[task].files(place_of(task, data))))}: changed since the run",
            f"Restore what was asked, or evaluate again into another folder than {run.path}.",
        )

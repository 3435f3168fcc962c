"""Turn a run's answers into results: the score of each setup on each task."""

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from tokenprune.evals.run.setups import Setup
from tokenprune.evals.storage.answers import Answer, AnswerKey, Score
from tokenprune.evals.storage.results import FAILED, QuestionScore, TaskResult, digest
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question, number_images
from tokenprune.evals.tasks.base.task import Task


def task_results(
    questions: Sequence[Question],
    setups: Sequence[Setup],
    answers: Mapping[AnswerKey, Answer],
    *,
    dataset: str,
    model: str,
    identity: Mapping[str, Any],
) -> list[TaskResult]:
    """Return one result per setup and task. Every question must have its answer.

    dataset, model: the names of the data set and the model in the results. identity: the run's.
    """
    about = {"dataset": dataset, "model": model, "versions": identity["versions"]}
    about |= {name: identity["model"][name] for name in ("device", "dtype")}
    tasks: dict[str, list[Question]] = {}
    for question in questions:
        tasks.setdefault(question.task, []).append(question)
    numbers = {task: number_images(of_task) for task, of_task in tasks.items()}
    return [
        _result(
            of_task,
            numbers[task],
            setup,
            [answers[AnswerKey.of(question, setup.key)] for question in of_task],
            about,
        )
        for setup in setups
        for task, of_task in tasks.items()
    ]


def _result(
    questions: list[Question], numbers: list[int], setup: Setup, answers: list[Answer], about: dict[str, Any]
) -> TaskResult:
    task = TASKS[questions[0].task]
    answered = list(zip(questions, answers, strict=True))
    # A failed question excludes its whole group: other setups were asked the full group.
    failed = {_group(question) for question, answer in answered if answer.error is not None}
    counted = [(question, answer) for question, answer in answered if _group(question) not in failed]
    published = task.metrics([(question, answer.text) for question, answer in counted]) if counted else {}
    image = dict(zip((question.id for question in questions), numbers, strict=True))
    about_images = [image[question.id] for question, _ in counted]
    intervals = {name: metric.interval(about_images) for name, metric in published.items()}
    scores: dict[str, list[QuestionScore]] = {question.split: [] for question in questions}
    images: dict[str, list[int]] = {question.split: [] for question in questions}
    for group in _by_group(answered) if task.of_groups else [[answer] for answer in answered]:
        question, _ = group[0]
        scores[question.split].append(FAILED if _group(question) in failed else _score(task, group))
        images[question.split].append(image[question.id])
    given = [answer for _, answer in counted] or answers
    return TaskResult(
        **about,
        task=task.name,
        metric=task.metric,
        strategy=setup.label,
        settings=setup.settings(),
        position_ids=setup.position_ids,
        keep_ratio=setup.keep_ratio,
        n_visual=fmean(answer.n_visual for answer in given),
        n_kept=fmean(answer.n_kept for answer in given),
        n_mean=fmean(answer.n_mean for answer in given),
        kv_cache_bytes=answers[0].kv_cache_bytes or 0,
        seconds=fmean(answer.seconds for answer in given),
        questions=digest([question.id for question in questions]),
        scores=scores,
        images=images,
        metrics={name: metric.value for name, metric in published.items()},
        intervals={name: bounds for name, bounds in intervals.items() if isfinite(bounds[0])},
    )


def _score(task: Task, group: Sequence[tuple[Question, Answer]]) -> Score:
    """Return the main metric of one question, or of a group that counts as one; None if an answer cannot be read."""
    if any(answer.score is None for _, answer in group):
        return None
    if not task.of_groups:
        return group[0][1].score
    return task.metrics([(question, answer.text) for question, answer in group])[task.metric].value


def _by_group(answered: Sequence[tuple[Question, Answer]]) -> list[list[tuple[Question, Answer]]]:
    groups: dict[str, list[tuple[Question, Answer]]] = {}
    for question, answer in answered:
        groups.setdefault(_group(question), []).append((question, answer))
    return list(groups.values())


def _group(question: Question) -> str:
    return question.group or question.id

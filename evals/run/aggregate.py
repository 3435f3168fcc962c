"""Rows from a run's answers: what each setup is worth on each task."""

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from tokenprune.evals.run.answers import Answer, Asked, Score
from tokenprune.evals.run.results import FAILED, Row, RowScore, digest
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks._base.question import Sample
from tokenprune.evals.tasks._base.task import Task


def rows(
    samples: Sequence[Sample],
    setups: Sequence[Setup],
    answers: Mapping[Asked, Answer],
    *,
    scenes: str,
    model: str,
    identity: Mapping[str, Any],
) -> list[Row]:
    """Return a row for each setup and task. Every question must have its answer.

    `scenes` and `model` are what the rows call the set and the model, `identity` is the run's.
    """
    about = {"scenes": scenes, "model": model, "versions": identity["versions"]}
    about |= {name: identity["model"][name] for name in ("device", "dtype")}
    tasks: dict[str, list[Sample]] = {}
    for sample in samples:
        tasks.setdefault(sample.task, []).append(sample)
    return [
        _row(of_task, setup, [answers[Asked(task, sample.id, setup.key)] for sample in of_task], about)
        for setup in setups
        for task, of_task in tasks.items()
    ]


def _row(samples: list[Sample], setup: Setup, answers: list[Answer], about: dict[str, Any]) -> Row:
    task = TASKS[samples[0].task]
    answered = list(zip(samples, answers, strict=True))
    # A question that could not be asked takes its group along: what is left of it is not what others were asked.
    failed = {_group(sample) for sample, answer in answered if answer.error is not None}
    said = [(sample, answer) for sample, answer in answered if _group(sample) not in failed]
    published = task.metrics([(sample, answer.text) for sample, answer in said]) if said else {}
    numbers = {pictures: number for number, pictures in enumerate(dict.fromkeys(s.images for s in samples))}
    about_pictures = [numbers[sample.images] for sample, _ in said]
    intervals = {name: metric.interval(about_pictures) for name, metric in published.items()}
    scores: dict[str, list[RowScore]] = {sample.split: [] for sample in samples}
    pictures: dict[str, list[int]] = {sample.split: [] for sample in samples}
    for unit in _groups(answered) if task.of_groups else [[one] for one in answered]:
        sample, _ = unit[0]
        scores[sample.split].append(FAILED if _group(sample) in failed else _score(task, unit))
        pictures[sample.split].append(numbers[sample.images])
    asked = [answer for _, answer in said] or answers
    return Row(
        **about,
        task=task.name,
        metric=task.metric,
        strategy=setup.label,
        settings=setup.settings(),
        position_ids=setup.position_ids,
        keep_ratio=setup.keep_ratio,
        n_visual=fmean(answer.n_visual for answer in asked),
        n_kept=fmean(answer.n_kept for answer in asked),
        n_mean=fmean(answer.n_mean for answer in asked),
        kv_cache_bytes=answers[0].kv_cache_bytes or 0,
        seconds=fmean(answer.seconds for answer in asked),
        questions=digest([sample.id for sample in samples]),
        scores=scores,
        pictures=pictures,
        metrics={name: metric.value for name, metric in published.items()},
        intervals={name: bounds for name, bounds in intervals.items() if isfinite(bounds[0])},
    )


def _score(task: Task, unit: Sequence[tuple[Sample, Answer]]) -> Score:
    """Return what a question is worth by the main metric, or all that count together; None where one of their answers
    cannot be read."""
    if any(answer.score is None for _, answer in unit):
        return None
    if not task.of_groups:
        return unit[0][1].score
    return task.metrics([(sample, answer.text) for sample, answer in unit])[task.metric].value


def _groups(answered: Sequence[tuple[Sample, Answer]]) -> list[list[tuple[Sample, Answer]]]:
    groups: dict[str, list[tuple[Sample, Answer]]] = {}
    for sample, answer in answered:
        groups.setdefault(_group(sample), []).append((sample, answer))
    return list(groups.values())


def _group(sample: Sample) -> str:
    return sample.group or sample.id

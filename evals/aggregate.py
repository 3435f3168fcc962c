"""Rows from a run's answers: what each configuration is worth on each task."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from tokenprune.evals.answers import Answer, Asked
from tokenprune.evals.configurations import Configuration
from tokenprune.evals.rows import FAILED, Row, RowScore, digest
from tokenprune.evals.sample import Sample
from tokenprune.evals.task import Task
from tokenprune.evals.tasks import TASKS


def rows(
    samples: Sequence[Sample],
    configurations: Sequence[Configuration],
    answers: Mapping[Asked, Answer],
    *,
    scenes: str,
    model: str,
    identity: Mapping[str, Any],
) -> list[Row]:
    """Return a row for each configuration and task. Every question must have its answer.

    `scenes` and `model` are what the rows call the set and the model, `identity` is the run's.
    """
    about = {"scenes": scenes, "model": model, "versions": identity["versions"]}
    about |= {name: identity["model"][name] for name in ("device", "dtype")}
    tasks: dict[str, list[Sample]] = {}
    for sample in samples:
        tasks.setdefault(sample.task, []).append(sample)
    return [
        _row(of_task, configuration, [answers[Asked(task, sample.id, configuration.key)] for sample in of_task], about)
        for configuration in configurations
        for task, of_task in tasks.items()
    ]


def _row(samples: list[Sample], configuration: Configuration, answers: list[Answer], about: dict[str, Any]) -> Row:
    task = TASKS[samples[0].task]
    said = [(sample, answer) for sample, answer in zip(samples, answers, strict=True) if answer.error is None]
    published = task.metrics([(sample, answer.text) for sample, answer in said]) if said else {}
    numbers = {pictures: number for number, pictures in enumerate(dict.fromkeys(s.images for s in samples))}
    scores: dict[str, list[RowScore]] = {}
    pictures: dict[str, list[int]] = {}
    for split in dict.fromkeys(sample.split for sample in samples):
        of_split = [(s, answer) for s, answer in zip(samples, answers, strict=True) if s.split == split]
        scores[split] = _scores(task, of_split)
        # A group of questions that is worth something together counts as a picture of its own.
        own = len(scores[split]) == len(of_split)
        pictures[split] = [numbers[s.images] for s, _ in of_split] if own else list(range(len(scores[split])))
    asked = [answer for _, answer in said] or answers
    return Row(
        **about,
        task=task.name,
        metric=task.metric,
        strategy=configuration.label,
        settings=configuration.settings(),
        position_ids=configuration.position_ids,
        keep_ratio=configuration.keep_ratio,
        n_visual=fmean(answer.n_visual for answer in asked),
        n_kept=fmean(answer.n_kept for answer in asked),
        n_mean=fmean(answer.n_mean for answer in asked),
        kv_cache_bytes=answers[0].kv_cache_bytes or 0,
        seconds=fmean(answer.seconds for answer in asked),
        questions=digest([sample.id for sample in samples]),
        scores=scores,
        pictures=pictures,
        metrics={name: metric.value for name, metric in published.items()},
    )


def _scores(task: Task, answered: Sequence[tuple[Sample, Answer]]) -> list[RowScore]:
    """Return what each question is worth by the task's main metric, or each group of them if it is one of groups."""
    said = [(sample, answer.text) for sample, answer in answered if answer.error is None]
    points = task.metrics(said)[task.metric].points if said else ()
    if len(points) != len(said):
        return list(points)
    return [FAILED if answer.error is not None else answer.score for _, answer in answered]

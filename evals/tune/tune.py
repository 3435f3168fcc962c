"""Find the cheapest setting within a bound on the loss of accuracy, and write it down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from tokenprune.adapters import adapter_for
from tokenprune.errors import SettingError
from tokenprune.evals.arguments.fields import taking
from tokenprune.evals.defaults import BATCH_TOKENS
from tokenprune.evals.models.loading import load_model, name_and_style, source_of
from tokenprune.evals.models.overrides import in_evaluation_mode
from tokenprune.evals.models.video_prompts import adapter_for_clips
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.run.arguments import as_model
from tokenprune.evals.run.calibration_images import image_digests
from tokenprune.evals.run.progress import plain_printer, progress_bar
from tokenprune.evals.run.questions import limit_questions, load_questions, notices
from tokenprune.evals.search.journal import locked_study
from tokenprune.evals.storage import files
from tokenprune.evals.storage.identity import record_identity
from tokenprune.evals.storage.provenance import answering_identity, class_identity, tasks_identity, versions
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.video import VideoQuestion
from tokenprune.evals.tune import page, plot
from tokenprune.evals.tune.confirm import MOST, Tuned, confirm, sequence
from tokenprune.evals.tune.costs import N_QUESTIONS, CostMeter
from tokenprune.evals.tune.questions import halves
from tokenprune.evals.tune.scoring import Measure, ModelScorer, locked_answers, measure_of
from tokenprune.evals.tune.search import SearchPlan, Tried, search
from tokenprune.evals.tune.settings import Cost, TuningSettings
from tokenprune.evals.tune.space import STRATEGIES, Space, check_arguments
from tokenprune.serving.vllm.architectures.checkpoints import architecture_of_loaded
from tokenprune.strategies.registry import changed_settings, name_of

#: Files in the output folder.
SETTINGS, NOT_SHOWN, PAGE, PLOT = "settings.json", "unproven.json", "tuned.md", "tuned.png"
JOURNAL, IDENTITY = "search.journal", "tune.json"


@taking(TuningSettings)
def tune(settings: TuningSettings) -> Tuned:
    """Find the cheapest setting that loses at most `max_loss` points of accuracy, with 95 % confidence.

        tuned = tokenprune.tune("llava-hf/llava-1.5-7b-hf", data="questions", max_loss=1.0, output="runs/tuned")
        tokenprune.patch(model, tuned.strategy)

    model: a folder or a Hugging Face name; or a pair of a loaded model and its processor, which are left unchanged.
    data, tasks, split, limit: the questions, as for `evaluate`. They are split by image: the search uses one half, the
        test of its results the other.
    output: a folder for the settings file, a page, a plot and everything needed to resume. SettingError if it holds
        another tuning.
    strategies: the strategies to search, as for `--strategy`. keep_ratios: the lowest and the highest.
    cost: what to minimise, "flops", "kv" or "ttft", see `tokenprune.evals.tune.costs`.
    labels: False for questions without right answers. `compare` then says what is measured: "answers" (the default),
        agreement with the unpruned model's answers; "first-token", overlap of the distribution of the answer's first
        token with the unpruned model's. A point of the latter is a total variation distance of 0.01, averaged over the
        questions, and `max_loss` bounds it with the same confidence. SettingError with right answers.
    servable: only settings that `tokenprune serve` can run in vLLM.
    generations, size: how many rounds of proposals, and how many settings per round.
    """
    model, output, data = as_model(settings.model), Path(settings.output), Path(settings.data)
    console, max_loss, cost, tasks = settings.console or Console(), settings.max_loss, settings.cost, settings.tasks
    strategies, keep_ratios = settings.strategies, settings.keep_ratios
    strategies = STRATEGIES if strategies is None else tuple(strategies)
    say = plain_printer(console)
    batch_tokens = settings.batch_tokens or BATCH_TOKENS
    measure = measure_of(settings.labels, settings.compare)
    _check(max_loss, strategies, keep_ratios)
    files.check_folder(output)
    with allowing(settings.image_roots, settings.max_image_pixels):
        name, style = name_and_style(model)
        questions = limit_questions(
            load_questions(data, tasks, split=settings.split, style=style, labels=settings.labels), settings.limit
        )
        for notice in notices(questions, data, tasks):
            say(notice)
        searched, fresh = halves(questions, settings.seed)
        loaded, processor = load_model(model, settings.dtype) if isinstance(model, str) else model
        n_layers = len(adapter_for(loaded).layers)
        if settings.servable:
            architecture_of_loaded(loaded.config.to_dict())  # raises for a model that vLLM cannot prune
        of_videos = all(isinstance(question, VideoQuestion) for question in questions)
        adapter = adapter_for_clips(loaded, processor) if of_videos else None
        space = Space(loaded, n_layers, strategies, keep_ratios, settings.servable, adapter)
        for text, why in space.refused.items():
            say(f"Leaving out {text}: {why}")
        plan = SearchPlan(max_loss, settings.generations, settings.size, len(fresh.questions), settings.seed)
        identity = _identity(space, plan, processor, questions, cost, measure, batch_tokens)
        output.mkdir(parents=True, exist_ok=True)
        instead = f"Name another --output, or delete {output} to start again."
        with (
            in_evaluation_mode(loaded),
            locked_study(output / JOURNAL, identity, instead) as study,
            locked_answers(output / "answers") as (write, stored),
        ):
            # In addition to the journal, because answers remain if that is deleted.
            record_identity(output / IDENTITY, identity, "another tuning")
            n_all = plan.n_answers(searched) + len(questions) + MOST * len(fresh.questions)
            with _progress(console, n_all) as (advance, name_part):
                scorer = ModelScorer(
                    loaded, processor, write, stored, measure=measure, batch_tokens=batch_tokens, advance=advance
                )
                asked = searched.questions
                few = asked[:: max(1, len(asked) // N_QUESTIONS)][:N_QUESTIONS]
                tried = search(study, space, plan, searched, scorer, CostMeter(loaded, processor, few, cost), name_part)
                order = sequence(tried)
                tested = confirm(order, fresh, scorer, max_loss, name_part)
        passed = [test.tried for test in tested if test.passed]
        best = passed[-1] if passed else next(iter(order), None)
        written = None if best is None else output / (SETTINGS if passed else NOT_SHOWN)
        tuned = Tuned(bool(passed), best, written, output / PAGE, tested, tried)
        about = page.About(
            name, str(data), max_loss, cost, measure, len(searched.questions), space.refused, source_of(model)
        )
        tuned = replace(tuned, verdict=page.verdict(tuned, about))
        if best is not None and written is not None:
            record = _record(tuned, best, about, identity, questions, n_layers, settings.split)
            files.replace(written, json.dumps(record, indent=1) + "\n")
        plot.draw(tuned, about, output / PLOT)
        files.replace(output / PAGE, page.write(tuned, about, scorer, fresh, PLOT))
    return tuned


def _check(max_loss: float, strategies: Sequence[str], keep_ratios: tuple[float, float]) -> None:
    """Raise SettingError for an impossible search."""
    for name in strategies:
        if not isinstance(name, str):
            raise SettingError(f"strategies: found {name!r}; tune takes names, such as 'fopru'.")
    if not 0 < max_loss < 100:
        raise SettingError(f"max_loss={max_loss:g} is not between 0 and 100 points; write 1.0 for one point.")
    check_arguments(strategies, keep_ratios)


def _identity(
    space: Space,
    plan: SearchPlan,
    processor: Any,
    questions: Sequence[Question],
    cost: Cost,
    measure: Measure,
    batch_tokens: int,
) -> dict[str, Any]:
    """Everything that affects which settings are tried and tested, and their answers."""
    return {
        "max_loss": plan.margin,
        "strategies": {text: class_identity(space.specs[text].strategy_class) for text in space.possible},
        "keep_ratios": list(space.keep_ratios),
        "cost": cost,
        "measure": measure,
        "servable": space.servable,
        "generations": plan.generations,  # more would test other settings on questions that are no longer fresh
        "size": plan.size,
        "seed": plan.seed,
        "batch_tokens": batch_tokens,
        "model": answering_identity(space.model, processor),
        "data": tasks_identity(questions),
        "versions": versions(),
    }


def _record(
    tuned: Tuned,
    best: Tried,
    about: page.About,
    identity: dict[str, Any],
    questions: Sequence[Question],
    n_layers: int,
    split: str | None,
) -> dict[str, Any]:
    """The content of the settings file."""
    strategy = best.setup.strategy
    return {
        "strategy": name_of(type(strategy)),
        "settings": changed_settings(strategy),
        "model": {"name": about.model, "layers": n_layers, **identity["model"]},
        "search": {
            "max_loss": about.max_loss,
            "promised": tuned.passed,
            "cost": {"kind": about.cost, "relative": best.cost},
            "tested": [
                {
                    "setting": str(test.tried.setup.key),
                    "points": test.loss.points,
                    "upper": test.loss.upper,
                    "n": test.loss.n,
                    "passed": test.passed,
                }
                for test in tuned.tested
            ],
            "measure": about.measure,
            "data": {"name": about.data, "split": split, "images": image_digests(questions)},
            "versions": {**versions(), "optuna": version("optuna")},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    }


@contextmanager
def _progress(console: Console, total: int) -> Iterator[tuple[Any, Any]]:
    """Yield a function that counts answers, and one that names their part. The total is the most that can be asked."""
    with progress_bar(console) as progress:
        bar = progress.add_task("unpruned", total=total)
        yield lambda n: progress.advance(bar, n), lambda line: progress.update(bar, description=line)

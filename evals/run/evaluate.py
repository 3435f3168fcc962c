"""Evaluate a model on tasks under every setup, in a folder from which a killed run resumes."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console

import tokenprune
from tokenprune.adapters import ModelAdapter
from tokenprune.errors import SettingError
from tokenprune.evals.arguments.fields import taking
from tokenprune.evals.defaults import BATCH_TOKENS, DEFAULT_STRATEGIES
from tokenprune.evals.models.image_view import view_through
from tokenprune.evals.models.loading import load_model, load_processor, name_and_style, source_of
from tokenprune.evals.models.prompt_styles import Style
from tokenprune.evals.models.video_prompts import adapter_for_clips
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.run import downsample
from tokenprune.evals.run.aggregate import task_results
from tokenprune.evals.run.arguments import as_model, as_strategies
from tokenprune.evals.run.backend import Backend, InProcessBackend
from tokenprune.evals.run.calibration_images import calibrated_on, without_images
from tokenprune.evals.run.engines.backend import check_for_engine, engine_backend
from tokenprune.evals.run.plan import Plan
from tokenprune.evals.run.processes import Processes, processes
from tokenprune.evals.run.progress import plain_printer, progress_bar
from tokenprune.evals.run.questions import cut_off, limit_questions, load_questions, notices
from tokenprune.evals.run.settings import EvaluationSettings, OnError
from tokenprune.evals.run.setups import Setup, make_setups, read_by
from tokenprune.evals.storage.answers import Answer, AnswerKey
from tokenprune.evals.storage.files import check_folder
from tokenprune.evals.storage.provenance import tasks_identity
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.run_folder import RunFolder
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.video import VideoQuestion
from tokenprune.strategies.settings import SettingsFile


@taking(EvaluationSettings)
def evaluate(settings: EvaluationSettings) -> list[TaskResult]:
    """Ask `model` all questions under all setups, and return one result per setup and task.

        from tokenprune.evals import evaluate

        results = evaluate("llava-hf/llava-1.5-7b-hf", output="runs/llava", tasks=["pope"], data="sets", limit=100)
        print(results[0].strategy, results[0].accuracy, results[0].interval)

    model: a folder or a Hugging Face name; or a pair of a loaded model and its processor, which are left as they are.
    output: the run's folder. Questions that it holds answers to are not asked again, so the same call resumes a killed
        run, and a call with more strategies or tasks runs only those. Failed questions are asked again. SettingError if
        the folder holds another run. Under `accelerate launch` the processes share the questions, with the same answers
        as from a single process.
    strategies, keep_ratios, position_ids, baselines: the setups, see `make_setups`. strategies None: of the default
        ones, those that the model can be pruned with. baselines None: unpruned, random, and downsample if the model
        supports it. For a server, the defaults are the strategy, keep ratio and position IDs that it was started with.
    tasks, data, split: the questions, see `load_questions`. limit: the most of each task, evenly spaced.
    apart_from: settings files that are not among the setups. Questions about images that they were calibrated on are
        also left out, so that runs in several folders ask the same questions.
    dtype, device_map: how the model is loaded, see `load_model`.
    batch_tokens, on_error: see `Runner`.
    image_roots: folders outside `data` that its images may be in. max_image_pixels: larger images are not decoded.
    frames: how many to read of each video. A model that takes no videos gets them as images of one prompt.
    image_size: height and width in pixels to which the processor resizes images, instead of its own size. Changes the
        number of visual tokens of every setup; results name it with the set. See `at_size`.
    pad: whether to pad images to squares where the processor crops them, see `padding`; results name it with the set.
    console: where progress is shown.
    engine: answers instead of the model in this process: "vllm", with `engine_options` as arguments of its `LLM`, or
        the URL of a server that `tokenprune serve` started. `model` is then the name or folder that it serves.
    """
    engine, image_size, pad, on_error = settings.engine, settings.image_size, settings.pad, settings.on_error
    strategies, baselines, tasks = settings.strategies, settings.baselines, settings.tasks
    model, chosen = as_model(settings.model), as_strategies(DEFAULT_STRATEGIES if strategies is None else strategies)
    if settings.engine_options and engine is None:
        raise SettingError("engine_options (--engine-options) are for an engine: name one with engine (--engine vllm)")
    if settings.batch_tokens is not None and engine is not None:
        raise SettingError("batch_tokens (--batch-tokens) has no effect with an engine: leave it out")
    batch_tokens = settings.batch_tokens or BATCH_TOKENS
    here, output, data = processes(), Path(settings.output), Path(settings.data)
    console = (settings.console or Console()) if here.is_first else Console(quiet=True)
    say = plain_printer(console)
    budgets: dict[str, Any] = {"keep_ratios": settings.keep_ratios, "position_ids": settings.position_ids}
    given = {name: value for name, value in budgets.items() if value is not None}
    named = make_setups(chosen, baselines=baselines or (), **given)  # report mistakes before weights load
    if baselines is not None and not named:
        raise SettingError("nothing to measure: neither a strategy nor a baseline is named. Name one.")
    avoided = _avoided(settings.apart_from, say)
    check_folder(output)
    folder = RunFolder(output)
    done = _done(folder)
    with allowing(settings.image_roots, settings.max_image_pixels, settings.frames):
        name, style = _name_and_style(model, image_size, pad)
        asked = load_questions(data, tasks, split=settings.split, style=style)
        for notice in notices(asked, data, tasks):
            say(notice)
        if engine is not None:
            check_for_engine(asked, image_size, pad, settings.device_map)
            backend = engine_backend(engine, model, settings.dtype, settings.engine_options or {}, on_error)
        else:
            loaded = (
                load_model(model, settings.dtype, here.device, settings.device_map) if isinstance(model, str) else model
            )
            backend = _in_process(loaded, image_size, pad, batch_tokens, on_error)
        compared = _compared(backend, asked, None if strategies is None else chosen, baselines, given, say)
        groups = backend.groups(compared)
        calibration = avoided.union(*(setup.calibrated_on for setup in compared))
        questions = limit_questions(_uncalibrated(asked, calibration, data, say), settings.limit)
        if (cut := cut_off(questions, style.view)) is not None:
            say(cut)
        about = {
            "model": name,
            "data": _place(data),
            "loaded_from": _place(source_of(model) or name),
            "processes": here.count,
            "frames": settings.frames,
            "begun": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **({} if engine is None else {"engine": engine}),
        }
        decisive = {  # besides the model and the versions
            "data": {"split": settings.split, "limit": settings.limit, **tasks_identity(questions)},
            "setups": {str(setup.key): setup.identity() for setup in compared},
            "batch_tokens": batch_tokens,
            **({} if image_size is None else {"image_size": list(image_size)}),
            **({"pad": True} if pad else {}),
            **({} if not settings.engine_options else {"engine_options": dict(settings.engine_options)}),
        }
        plans = [Plan(questions, group) for group in groups]
        unfinished = [plan for plan in plans if any(plan.parts(done))]
        identity = _ask_all(unfinished or plans[:1], backend, decisive, about, folder, here, console)
        answers = folder.answers()
        at_size = "" if image_size is None else f" {image_size[0]}x{image_size[1]}"
        dataset = f"{_name(data)}{at_size}{' padded' if pad else ''}"
        results = task_results(questions, compared, answers, dataset=dataset, model=name, identity=identity)
        if here.is_first:
            folder.write_results(results)
    return results


def _name_and_style(model: str | tuple[Any, Any], image_size: tuple[int, int] | None, pad: bool) -> tuple[str, Style]:
    """Return the model's name in results, and how it is asked about images as they are shown to it."""
    name, style = name_and_style(model)
    if image_size is None and not pad:
        return name, style
    processor = load_processor(model)[1] if isinstance(model, str) else model[1]
    return name, replace(style, view=view_through(downsample.as_asked(processor, image_size, pad)))


def _compared(
    backend: Backend,
    questions: Sequence[Question],
    strategies: Sequence[str | tokenprune.Strategy] | None,
    baselines: Sequence[str] | None,
    given: Mapping[str, Any],
    say: Callable[[str], None],
) -> list[Setup]:
    """Return the named setups or, if none, those that `backend` compares. given: keep ratios and position IDs, as
    arguments of `make_setups`."""
    adapter = _adapter(backend, questions)
    if baselines is None:
        baselines = backend.baselines(say)
    if strategies is None:
        strategies = backend.strategies(adapter, say)
    defaults = {"keep_ratios": backend.keep_ratios, "position_ids": backend.position_ids}
    return read_by(adapter, make_setups(strategies, baselines=baselines, **{**defaults, **given}))


def _adapter(backend: Backend, questions: Sequence[Question]) -> type[ModelAdapter] | None:
    """Return the adapter for a model in this process if all questions are about videos; None for the registered one."""
    if isinstance(backend, InProcessBackend) and all(isinstance(question, VideoQuestion) for question in questions):
        return adapter_for_clips(backend.model, backend.processor)
    return None


def _in_process(
    loaded: tuple[Any, Any], image_size: tuple[int, int] | None, pad: bool, batch_tokens: int, on_error: OnError
) -> InProcessBackend:
    model, processor = loaded
    processor = downsample.as_asked(processor, image_size, pad)
    return InProcessBackend(model, processor, batch_tokens, on_error, resized=image_size is not None)


def _done(folder: RunFolder) -> set[AnswerKey]:
    return {asked for asked, answer in folder.answers().items() if answer.error is None}


def _avoided(apart_from: Sequence[str | Path], say: Callable[[str], None]) -> frozenset[str]:
    """Return the digests of the images that settings files were calibrated on; say which files name none."""
    avoided = frozenset[str]()
    for file in apart_from:
        images = calibrated_on(SettingsFile.read(file))
        if not images:
            say(f"{file}: no search wrote this file, so no image is left out for it.")
        avoided |= images
    return avoided


def _uncalibrated(
    questions: list[Question], calibration: frozenset[str], data: Path, say: Callable[[str], None]
) -> list[Question]:
    """Return the questions for all setups: none about an image with one of these digests."""
    rest = without_images(questions, calibration, str(data))
    if calibration:
        say(
            f"{_name(data)}: {len(questions) - len(rest)} of {len(questions)} questions are left out for all setups, "
            f"because settings files were calibrated on their images ({len(calibration)} images)."
        )
    return rest


def _ask_all(
    plans: Sequence[Plan],
    backend: Backend,
    decisive: Mapping[str, Any],
    about: Mapping[str, Any],
    folder: RunFolder,
    here: Processes,
    console: Console,
) -> dict[str, Any]:
    """Carry out the plans in sequence, and return the identity of the run.

    decisive: the part of it that does not come from the backend.
    """
    identity = dict[str, Any]()
    for plan in plans:
        with backend.serving(plan.setups):
            identity = {**backend.identity(), **decisive}
            folder.check(identity)
            with folder.writing(here.index) as write:
                if here.is_first:
                    folder.begin(identity, about)
                here.meet()
                folder.check(identity)  # every machine must have the same model, data and versions
                _ask(plan, backend, folder, here, console, write)
    return identity


def _ask(
    plan: Plan,
    backend: Backend,
    folder: RunFolder,
    here: Processes,
    console: Console,
    write: Callable[[Sequence[Answer]], None],
) -> None:
    """Ask this process's share of the missing answers, and return once all processes are done."""
    with progress_bar(console) as progress:
        if here.is_first:
            folder.drop_results()
        done = _done(folder)
        here.meet()  # no process writes before all have read
        parts = list(plan.parts(done, here.index, here.count))
        total = plan.n_asked(here.index, here.count)
        n_done = total - sum(len(part.missing) for part in parts)
        bar = progress.add_task("answers", total=total, completed=n_done)
        for answers in backend.ask(parts, plan.setups):
            write(answers)
            progress.advance(bar, len(answers))
    here.meet()


def _name(data: Path) -> str:
    """Return the name of a folder, even of the current one (`.`)."""
    return Path(os.path.abspath(data)).name


def _place(name: str | Path) -> str:
    """Return the absolute path of a folder; a Hugging Face name as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else str(name)

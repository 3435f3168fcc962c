"""Train a plain PEFT adapter on a pruned model."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from torch import nn
from transformers import TrainerState

import tokenprune
from tokenprune.errors import SettingError
from tokenprune.evals.adapt.estimate import estimate
from tokenprune.evals.adapt.examples import Example, by_image, check_images, labelled, sample_groups
from tokenprune.evals.adapt.generation import RowGenerator, UnprunedAnswer
from tokenprune.evals.adapt.logits import output_layer
from tokenprune.evals.adapt.lora import with_lora
from tokenprune.evals.adapt.objective import Objective, Ratios
from tokenprune.evals.adapt.own_answers import own_answers
from tokenprune.evals.adapt.record import ADAPTER, IDENTITY
from tokenprune.evals.adapt.rows import Collator, Row, on_device, why_not_in_one_row
from tokenprune.evals.adapt.settings import AdaptationSettings
from tokenprune.evals.adapt.shrinking import Shrinking, applied, identity_of
from tokenprune.evals.adapt.teaching import Distributions
from tokenprune.evals.adapt.training import STATE, Hyperparameters, PrunedTrainer, Rows, arguments, last_checkpoint
from tokenprune.evals.arguments.fields import taking
from tokenprune.evals.defaults import BATCH_TOKENS
from tokenprune.evals.models.loading import load_model, load_processor
from tokenprune.evals.models.prompt_styles import Style, style_of
from tokenprune.evals.reading.allowed import allowing
from tokenprune.evals.run.arguments import as_model
from tokenprune.evals.run.progress import plain_printer
from tokenprune.evals.run.questions import limit_questions, load_questions, notices
from tokenprune.evals.run.setups import DOWNSAMPLE, read_strategy
from tokenprune.evals.storage import files
from tokenprune.evals.storage.identity import record_identity
from tokenprune.evals.storage.provenance import answering_identity, tasks_identity, versions
from tokenprune.evals.tasks.base.question import Question, QuestionKey
from tokenprune.evals.tasks.base.task import NoSplitError

#: In the output folder, besides the adapter and what identifies the training: the checkpoints, the losses.
CHECKPOINTS, LOSSES = "checkpoints", "losses.jsonl"


@dataclass(frozen=True)
class Adapted:
    """adapter: a folder that `peft.PeftModel.from_pretrained` loads. losses: step and mean loss, as logged."""

    adapter: Path
    losses: Sequence[tuple[int, float]]


@taking(AdaptationSettings)
def adapt(settings: AdaptationSettings) -> Adapted:
    """Train a LoRA adapter for a model while it is pruned, so that it loses less accuracy.

        adapted = tokenprune.adapt("llava-hf/llava-1.5-7b-hf", data="train", keep_ratio=0.1, output="runs/adapted")
        model = PeftModel.from_pretrained(model, adapted.adapter)

    model: a folder or a Hugging Face name. data, tasks, limit: the questions, as for `tune`. If there are more than the
        steps need, some are drawn at random.
    split: None is "train", if the sets have it, otherwise all.
    output: a folder, from which the same call resumes; without labels, targets computed after resuming may be rounded
        differently. SettingError if it holds another training.
    strategy: as in `--strategy`, or `downsample`, which shrinks the images instead.
    keep_ratio, up_to, whole: a share `whole` of the steps is unpruned; in the others, the keep ratio is drawn between
        `keep_ratio` and `up_to`, so that one adapter works at all of them.
    labels: True learns the right answers; False what the unpruned model would answer, see
        `tokenprune.evals.adapt.teaching`.
    part, rank: what is trained, see `tokenprune.evals.adapt.lora`.
    batch_tokens: without labels, tokens in a batch of the questions that the unpruned model answers one by one.
    batch, per_image, accumulate: rows in a forward, questions about one image in a row, see
        `tokenprune.evals.adapt.rows`, and forwards in a step. If the model or the strategy does not allow several
        questions in a row, there is one, and the reason is printed.
    """
    model, output, data = _model_name(settings.model), Path(settings.output), Path(settings.data)
    console, labels, tasks = settings.console or Console(), settings.labels, settings.tasks
    say = plain_printer(console)
    if labels and settings.batch_tokens is not None:
        raise SettingError("batch_tokens (--batch-tokens) has no effect with labels: leave it out")
    batch_tokens = settings.batch_tokens or BATCH_TOKENS
    training = Hyperparameters(
        settings.part, settings.rank, settings.steps, settings.batch, settings.accumulate, settings.learning_rate
    )
    ratios = Ratios(settings.keep_ratio, settings.up_to, settings.whole, settings.seed)
    pruning = (
        None
        if settings.strategy == DOWNSAMPLE
        else read_strategy(settings.strategy).make({"keep_ratio": ratios.lowest})
    )
    files.check_folder(output)
    with allowing(settings.image_roots, settings.max_image_pixels):
        style = style_of(*load_processor(model))
        asked = limit_questions(_load(data, tasks, settings.split, style=style, labels=labels, say=say), settings.limit)
        for notice in notices(asked, data, tasks):
            say(notice)
        check_images(asked)
        answers = {example.question.key: example.answer for example in labelled(asked)} if labels else None
        loaded, processor = load_model(model, settings.dtype)
        base = Shrinking(processor, ratios.lowest) if pruning is None else pruning
        for ratio in (ratios.lowest, ratios.highest):  # fail now rather than at a step
            with applied(loaded, base, ratio):
                pass
        collator = Collator(processor, loaded.dtype)
        groups = _grouped(loaded, collator, base, asked, settings.per_image, say)
        objective = Objective(base, ratios, labels, _head(loaded, collator, asked[0], say))
        groups = sample_groups(groups, training.steps * training.rows_per_step, settings.seed)
        identity = _identity(loaded, processor, objective, training, groups, batch_tokens)
        output.mkdir(parents=True, exist_ok=True)
        with files.lock_for_appending(output / LOSSES, "another training is writing it"):
            record_identity(output / IDENTITY, identity, "another training")
            own: Mapping[QuestionKey, UnprunedAnswer] = {}
            if answers is None:
                generator = RowGenerator(loaded, collator, objective.head)
                own = own_answers(
                    generator, groups, output / "answers", console, batch=training.batch, batch_tokens=batch_tokens
                )
                answers = {key: answer.text for key, answer in own.items()}
            rows = _rows(groups, answers)
            known = _distributions(rows, own)
            return _train(loaded, collator, rows, known, objective, training, output, settings.save_every, say)


def _model_name(model: str | PathLike[str]) -> str:
    """Return a folder or a Hugging Face name as text. SettingError for a loaded model."""
    name = as_model(model)
    if not isinstance(name, str):
        raise SettingError("adapt loads the model itself, because training changes it: give its folder or its name")
    return name


def _load(
    data: Path,
    tasks: Sequence[str] | None,
    split: str | None,
    *,
    style: Style,
    labels: bool,
    say: Callable[[str], None],
) -> list[Question]:
    """The questions of a split; of "train" if none is named and there is one, which other commands leave out."""
    if split is not None:
        return load_questions(data, tasks, split=split, style=style, labels=labels)
    try:
        questions = load_questions(data, tasks, split="train", style=style, labels=labels)
    except NoSplitError:
        questions = load_questions(data, tasks, style=style, labels=labels)
        if names := ", ".join(sorted({question.split for question in questions} - {""})):
            say(f"Not every set has a split train, so this learns from {names}. To choose one: --split NAME")
    else:
        say("Learning from split train. To learn from another, name it: --split val")
    return questions


def _grouped(
    model: Any,
    collator: Collator,
    strategy: tokenprune.Strategy | Shrinking,
    questions: Sequence[Question],
    per_image: int,
    say: Callable[[str], None],
) -> list[tuple[Question, ...]]:
    """Questions about the same images, if they can be in one row; say why they cannot."""
    groups = by_image(questions, per_image)
    largest = max(groups, key=len)
    if len(largest) == 1:
        return groups
    reason = why_not_in_one_row(
        model, collator, strategy, Row(tuple(Example(question, question.text) for question in largest))
    )
    if reason is None:
        return groups
    say(f"One question per row, although several are about the same image: {reason}.")
    return by_image(questions, 1)


def _head(model: Any, collator: Collator, question: Question, say: Callable[[str], None]) -> nn.Module | None:
    """The output layer, see `tokenprune.evals.adapt.logits`; if there is none, say what that costs."""
    head = output_layer(model, on_device(collator([Row((Example(question, question.text),))]), model))
    if head is None:
        say(
            f"Every step computes the logits of all tokens, which takes memory: {type(model).__name__} changes them "
            f"after its output layer, or has a loss of its own."
        )
    return head


def _rows(groups: Sequence[tuple[Question, ...]], answers: Mapping[QuestionKey, str | None]) -> list[Row]:
    """The rows to learn, without questions that have no answer."""
    answered = [
        tuple(Example(question, answers[question.key]) for question in group if answers[question.key])
        for group in groups
    ]
    return [Row(examples) for examples in answered if examples]


def _identity(
    model: Any,
    processor: Any,
    objective: Objective,
    training: Hyperparameters,
    groups: Sequence[tuple[Question, ...]],
    batch_tokens: int,
) -> dict[str, Any]:
    """Everything that affects what is learnt. batch_tokens: of the questions that the unpruned model answers one by
    one."""
    return {
        **identity_of(objective.strategy),
        "ratios": asdict(objective.ratios),
        "labels": objective.labels,
        **asdict(training),
        "per_image": max(map(len, groups)),
        "model": answering_identity(model, processor),
        "data": tasks_identity([question for group in groups for question in group]),
        "versions": versions(),
        **({} if objective.labels else {"batch_tokens": batch_tokens}),
    }


def _train(
    model: Any,
    collator: Collator,
    rows: Sequence[Row],
    known: Mapping[Row, Distributions],
    objective: Objective,
    training: Hyperparameters,
    output: Path,
    save_every: int,
    say: Callable[[str], None],
) -> Adapted:
    autocast = model.dtype == torch.bfloat16
    transformers.set_seed(objective.ratios.seed)  # LoRA's own weights are drawn
    adapted = with_lora(model, training.part, training.rank)
    checkpoint = last_checkpoint(output / CHECKPOINTS)
    if checkpoint is None:
        largest = sorted(rows, key=lambda row: row.size, reverse=True)[: training.batch]
        needed = estimate(adapted, collator(largest), training.accumulate, objective, autocast=autocast)
        n_asked = 0 if objective.labels else len(rows) - len(known)
        n_taught = min(training.steps, math.ceil(n_asked / training.rows_per_step))
        say(needed.sentence(training.steps, objective.ratios.whole, n_taught))
    else:
        say(f"Resuming from {checkpoint}.")
    if checkpoint is not None and checkpoint.name == f"checkpoint-{training.steps}":  # the Trainer might take one more
        adapted.load_adapter(str(checkpoint), "default")
        state = TrainerState.load_from_json(str(checkpoint / STATE))
    else:
        cpu, seed = model.device.type == "cpu", objective.ratios.seed
        trainer = PrunedTrainer(
            model=adapted,
            args=arguments(
                output / CHECKPOINTS, training, save_every=save_every, seed=seed, cpu=cpu, autocast=autocast
            ),
            train_dataset=Rows(rows),
            data_collator=collator,
            objective=objective,
            known=known,
        )
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        state = trainer.state
    adapted.save_pretrained(str(output / ADAPTER))
    shutil.copyfile(output / IDENTITY, output / ADAPTER / IDENTITY)
    losses = [(int(line["step"]), line["loss"]) for line in state.log_history if "loss" in line]
    text = "".join(f"{json.dumps({'step': step, 'loss': loss})}\n" for step, loss in losses)
    files.replace(output / LOSSES, text)
    return Adapted(output / ADAPTER, losses)


def _distributions(rows: Sequence[Row], own: Mapping[QuestionKey, UnprunedAnswer]) -> dict[Row, Distributions]:
    """The teacher's distributions, for rows whose answers all have them."""
    by_row = {row: [own[example.question.key].distributions for example in row.examples] for row in rows if own}
    known = {row: [distribution for distribution in parts if distribution is not None] for row, parts in by_row.items()}
    return {row: Distributions.concat(parts) for row, parts in known.items() if len(parts) == len(row.examples)}

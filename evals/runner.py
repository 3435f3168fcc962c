"""Ask a model the questions of a set under every configuration, and count what each costs."""

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import transformers

import tokenprune
from tokenprune.evals.configurations import Configuration
from tokenprune.evals.prompts import encode
from tokenprune.evals.rows import Row, Score, digest
from tokenprune.evals.sample import Sample
from tokenprune.evals.tasks import TASKS

# LLaVA's box format is the longest answer: about 30 tokens. Shorter answers end by themselves.
MAX_NEW_TOKENS = 32


class SampleError(RuntimeError):
    """A question could not be asked. The run stops: a crash is never scored as a wrong answer."""


@dataclass(frozen=True)
class Answer:
    """What the model said to one question."""

    id: str
    split: str
    text: str
    score: Score
    n_visual: int
    n_kept: int


def run(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    configurations: Sequence[Configuration],
    *,
    scenes: str = "",
    model_name: str = "",
    batch_size: int = 8,
    on_answers: Callable[[int], None] = lambda n: None,
) -> Iterator[tuple[Row, list[Answer]]]:
    """Yield a row and its answers for each configuration and task, in that order.

    `scenes` and `model_name` are what the rows call the set and the model. `on_answers` hears how many questions were
    just answered.
    """
    for configuration in configurations:
        for task in dict.fromkeys(sample.task for sample in samples):
            asked = [sample for sample in samples if sample.task == task]
            with configuration.patched(model) as handle:
                kv_cache_bytes = _kv_cache_bytes(model, processor, asked[0], configuration)
                answers: list[Answer] = []
                for batch in _batches(asked, batch_size):
                    answers += _answer(model, processor, batch, configuration, handle)
                    on_answers(len(batch))
            row = Row(
                scenes=scenes,
                model=model_name,
                task=task,
                metric=TASKS[task].metric,
                strategy=configuration.label,
                settings=configuration.settings(),
                position_ids=configuration.position_ids,
                keep_ratio=configuration.keep_ratio,
                n_visual=sum(answer.n_visual for answer in answers) / len(answers),
                n_kept=sum(answer.n_kept for answer in answers) / len(answers),
                kv_cache_bytes=kv_cache_bytes,
                versions=versions(),
                device=str(model.device),
                dtype=str(model.dtype).removeprefix("torch."),
                questions=digest([answer.id for answer in answers]),
                scores={
                    split: [answer.score for answer in answers if answer.split == split]
                    for split in dict.fromkeys(answer.split for answer in answers)
                },
            )
            yield row, answers


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "tokenprune": tokenprune.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


@torch.inference_mode()
def _answer(
    model: Any, processor: Any, batch: Sequence[Sample], configuration: Configuration, handle: Any
) -> list[Answer]:
    with _named(batch, configuration):
        inputs = _inputs(model, processor, batch, configuration)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
    texts = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    counts = _visual_tokens(processor, inputs, configuration, handle)
    return [
        Answer(sample.id, sample.split, text.strip(), sample.score(text), n_visual, n_kept)
        for sample, text, (n_visual, n_kept) in zip(batch, texts, counts, strict=True)
    ]


def _inputs(model: Any, processor: Any, batch: Sequence[Sample], configuration: Configuration) -> Any:
    pictures = [sample.pictures() for sample in batch]
    questions = [sample.question for sample in batch]
    inputs = encode(processor, pictures, questions, **configuration.processor_options(processor))
    return inputs.to(model.device, model.dtype)


def _visual_tokens(processor: Any, inputs: Any, configuration: Configuration, handle: Any) -> list[tuple[int, int]]:
    """Return (n_visual, n_kept) of each sample: as the report says, or as there are placeholder tokens."""
    if handle is not None:
        return [(image.n_visual, image.n_kept) for image in handle.report.images]
    placeholders = (inputs["input_ids"] == processor.image_token_id).sum(1).tolist()
    return [(configuration.n_visual(processor, count), count) for count in placeholders]


@torch.inference_mode()
def _kv_cache_bytes(model: Any, processor: Any, sample: Sample, configuration: Configuration) -> int:
    with _named([sample], configuration):
        inputs = _inputs(model, processor, [sample], configuration)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=1, return_dict_in_generate=True)
    cache = output.cache if "cache" in output else output.past_key_values  # the name until transformers 5.23
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@contextmanager
def _named(samples: Sequence[Sample], configuration: Configuration) -> Iterator[None]:
    """Whatever is raised inside is raised again with the samples and the configuration that it is about."""
    try:
        yield
    except Exception as error:
        names = ", ".join(f"{sample.id} ({', '.join(map(str, sample.images))})" for sample in samples)
        setting = (
            f"{configuration.label}, keep ratio {configuration.keep_ratio}, position IDs {configuration.position_ids}"
        )
        raise SampleError(f"{setting}: stopped at {names}: {error}") from error


def _batches(samples: Sequence[Sample], size: int) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while batch := list(islice(iterator, size)):
        yield batch

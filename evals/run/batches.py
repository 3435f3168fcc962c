"""Decode the images or videos of questions, batch them by their number of tokens, and encode each batch once for all
setups."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tokenprune.evals.models.devices import input_device
from tokenprune.evals.models.video_prompts import encode_clips
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.tasks.base.question import Question
from tokenprune.zoom.prompts import encode_chat


@dataclass(frozen=True, eq=False)
class DecodedQuestion:
    """A question with its decoded images; `n_tokens` is the length of its prompt without pruning.

    A video is decoded again when it is asked about: `images` is None, because the clips of many questions do not fit
    into memory.
    """

    question: Question
    images: list[Image.Image] | None
    n_tokens: int

    @classmethod
    def of(cls, question: Question, processor: Any) -> "DecodedQuestion":
        clip = question.open_clip()
        if clip is not None:
            return cls(question, None, encode_clips(processor, [clip], [question.text])["input_ids"].shape[1])
        images = question.open_images()
        return cls(question, images, encode_chat(processor, [images], [question.text])["input_ids"].shape[1])


def batches(decoded: Sequence[DecodedQuestion], batch_tokens: int) -> Iterator[list[DecodedQuestion]]:
    """Yield batches of at most `batch_tokens` tokens, padding included; a longer prompt is a batch of its own.

    The longest come first, so that running out of memory shows at once and neighbours need little padding.
    """
    batch: list[DecodedQuestion] = []
    for one in sorted(decoded, key=lambda one: -one.n_tokens):
        mixed = batch and (one.images is None) != (batch[0].images is None)
        if batch and (mixed or batch[0].n_tokens * (len(batch) + 1) > batch_tokens):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def encode_batch(model: Any, processor: Any, batch: Sequence[DecodedQuestion], setup: Setup) -> Any:
    """Return the inputs of a batch on the model's device."""
    questions, options = [one.question.text for one in batch], setup.processor_options(processor)
    images = [one.images for one in batch if one.images is not None]
    if images:
        inputs = encode_chat(processor, images, questions, **options)
    else:
        clips = [clip for one in batch if (clip := one.question.open_clip()) is not None]
        inputs = encode_clips(processor, clips, questions, **options)
    return inputs.to(input_device(model), model.dtype)


def group_by_encoding(processor: Any, setups: Sequence[Setup]) -> list[list[Setup]]:
    """Group setups with equal inputs, which are all that do not resize the image."""
    groups: dict[str, list[Setup]] = {}
    for setup in setups:
        groups.setdefault(json.dumps(setup.processor_options(processor)), []).append(setup)
    return list(groups.values())

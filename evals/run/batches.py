"""Decode the images or videos of questions, batch them by their number of tokens, and encode each batch once for all
setups."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tokenprune.adapters.devices import input_device
from tokenprune.evals.models.video_prompts import encode_clips
from tokenprune.evals.run.setups import Setup
from tokenprune.evals.tasks.base.question import Question
from tokenprune.evals.tasks.base.video import VideoQuestion
from tokenprune.prompts import encode_chat

#: The most pixels of a question's images held until it is asked: 50 MB in RGB.
MOST_HELD = 2**24


@dataclass(frozen=True, eq=False)
class DecodedQuestion:
    """A question with its decoded images; `n_tokens` is the length of its prompt without pruning.

    Large images and videos are decoded again when asked about: `images` is None, because many questions' images do not
    fit into memory.
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
        n_tokens = encode_chat(processor, [images], [question.text])["input_ids"].shape[1]
        is_small = sum(image.width * image.height for image in images) <= MOST_HELD
        return cls(question, images if is_small else None, n_tokens)

    @property
    def is_clip(self) -> bool:
        return isinstance(self.question, VideoQuestion)

    def decoded_images(self) -> list[Image.Image]:
        """Its images, decoded."""
        return self.question.open_images() if self.images is None else self.images


def batches(decoded: Sequence[DecodedQuestion], batch_tokens: int) -> Iterator[list[DecodedQuestion]]:
    """Yield batches of at most `batch_tokens` tokens, padding included; a longer prompt is a batch of its own.

    The longest come first, so that running out of memory shows at once and neighbours need little padding.
    """
    batch: list[DecodedQuestion] = []
    for each in sorted(decoded, key=lambda each: -each.n_tokens):
        if batch and batch[0].n_tokens * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


def encode_batch(model: Any, processor: Any, batch: Sequence[DecodedQuestion], setup: Setup) -> Any:
    """Return the inputs of a batch on the model's device."""
    questions, options = [each.question.text for each in batch], setup.processor_options(processor)
    if batch[0].is_clip:
        clips = [clip for each in batch if (clip := each.question.open_clip()) is not None]
        inputs = encode_clips(processor, clips, questions, **options)
    else:
        inputs = encode_chat(processor, [each.decoded_images() for each in batch], questions, **options)
    return inputs.to(input_device(model), model.dtype)


def group_by_encoding(processor: Any, setups: Sequence[Setup]) -> list[list[Setup]]:
    """Group setups with equal inputs: all that do not resize the image."""
    groups: dict[str, list[Setup]] = {}
    for setup in setups:
        groups.setdefault(json.dumps(setup.processor_options(processor)), []).append(setup)
    return list(groups.values())

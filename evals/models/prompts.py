"""What the model reads: the processor's own chat template around the image and the question."""

from collections.abc import Sequence
from typing import Any

from PIL import Image


def prompt(processor: Any, question: str, n_images: int = 1) -> str:
    """Return the prompt for a question behind its images, up to where the answer begins."""
    content = [{"type": "image"}] * n_images + [{"type": "text", "text": question}]
    turn = {"role": "user", "content": content}
    return processor.apply_chat_template([turn], add_generation_prompt=True)


def encode(processor: Any, images: Sequence[Sequence[Image.Image]], questions: Sequence[str], **options: Any) -> Any:
    """Return the model's inputs for a batch, padded on the left so that all answers begin in the same column.

    `images` are those of each question.
    """
    return processor(
        images=[list(shown) for shown in images],
        text=[prompt(processor, question, len(shown)) for question, shown in zip(questions, images, strict=True)],
        padding=True,
        padding_side="left",
        return_tensors="pt",
        **options,
    )

"""What the model reads: the processor's own chat template around the picture and the question."""

from collections.abc import Sequence
from typing import Any

from PIL import Image


def prompt(processor: Any, question: str) -> str:
    """Return the prompt for one picture and one question, up to where the answer begins."""
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    return processor.apply_chat_template([turn], add_generation_prompt=True)


def encode(processor: Any, pictures: Sequence[Image.Image], questions: Sequence[str], **options: Any) -> Any:
    """Return the model's inputs for a batch, padded on the left so that all answers begin in the same column."""
    return processor(
        images=list(pictures),
        text=[prompt(processor, question) for question in questions],
        padding=True,
        padding_side="left",
        return_tensors="pt",
        **options,
    )

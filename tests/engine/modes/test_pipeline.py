"""The pipelines of transformers, with the bundled model and its processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import pipeline

import tokenprune
from tokenprune import FoPru

MODEL = Path(__file__).parents[3] / "evals" / "bundled" / "model"


@pytest.fixture(scope="module")
def pipe() -> Any:
    return pipeline("image-text-to-text", model=str(MODEL), device="cpu")


def answers(pipe: Any) -> list[Any]:
    """Return the answers to one question about each of two images, in one batch."""
    images = [Image.new("RGB", size, colour) for size, colour in (((256, 256), "red"), ((300, 200), "blue"))]
    out = pipe(images=images, text=["<image>\nIs there a dog?"] * 2, max_new_tokens=4, do_sample=False)
    return [row["generated_text"] if isinstance(row, dict) else row[0]["generated_text"] for row in out]


def test_image_text_to_text(pipe: Any) -> None:
    plain = answers(pipe)
    with tokenprune.patch(pipe.model, FoPru(keep_ratio=0.25)) as handle:
        pruned = answers(pipe)
    assert [image.n_kept for image in handle.report.images] == [64, 64]
    assert all("dog?" in text for text in pruned)
    with tokenprune.patch(pipe.model, FoPru(keep_ratio=1.0)):
        assert answers(pipe) == plain
    assert answers(pipe) == plain


def test_a_chat(pipe: Any) -> None:
    image = Image.new("RGB", (256, 256), "red")
    chat = [
        {
            "role": "user",
            "content": [{"type": "image", "image": image}, {"type": "text", "text": "Is there a dog?"}],
        }
    ]
    with tokenprune.patch(pipe.model, FoPru(keep=16)) as handle:
        out = pipe(text=chat, max_new_tokens=4, do_sample=False, return_full_text=False)
    assert handle.report.n_kept == 16
    assert isinstance(out[0]["generated_text"], str)

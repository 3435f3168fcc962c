"""Load a model with its processor, and all questions of a folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from tokenprune.evals.bundled_paths import MODEL
from tokenprune.evals.sample import Sample
from tokenprune.evals.styles import LLAVA, Style
from tokenprune.evals.tasks import TASKS

T = TypeVar("T")


def load_model(name: str, dtype: str = "float32") -> tuple[Any, Any]:
    """Return (model, processor) of a folder or a Hugging Face name, on the GPU if there is one."""
    if Path(name) == MODEL and not (MODEL / "model.safetensors").is_file():
        raise FileNotFoundError(f"{MODEL}: no bundled model here (wheels have none); say which one with --model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=getattr(torch, dtype))
    return model.to(device).eval(), AutoProcessor.from_pretrained(name)


def public_name(model: str) -> str:
    """Return what results call the model: a folder by its path from here or its last part, not with all its parents."""
    path = Path(model).resolve()
    if not path.is_dir():
        return model
    here = Path.cwd().resolve()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name


def load_samples(folder: Path, *, split: str | None = None, style: Style = LLAVA) -> list[Sample]:
    """Return the questions of every set whose files are in `folder`: in RefCOCO's format, VQAv2's or both.

    `split` is that of the refs and, for VQAv2, that of the pictures in `instances.json`; None means all but `train`.
    They are asked as models of `style` want them.
    """
    samples: list[Sample] = []
    for task in (TASKS["rec"], TASKS["vqa"]):
        if task.is_in(folder):
            samples += task.load(folder, split, style)
    if not samples:
        raise FileNotFoundError(f"{folder}: no questions; needs refs(NAME).p or .json, or *questions.json")
    return samples


def limited(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """Return `limit` samples of each task, spread evenly."""
    tasks = dict.fromkeys(sample.task for sample in samples)
    return [kept for task in tasks for kept in evenly([sample for sample in samples if sample.task == task], limit)]


def evenly(samples: Sequence[T], limit: int | None) -> list[T]:
    """Return `limit` samples at equal distances, so that a few stand for the whole file."""
    if limit is None or limit >= len(samples):
        return list(samples)
    return [samples[index * len(samples) // limit] for index in range(limit)]

"""A tiny model with enough layers for stages, and questions to search on."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helpers.files.evals import ref, sample_image, tiny_processor
from helpers.models.staged import FAMILY
from tokenprune.evals.search.optimize import optimize
from tokenprune.evals.tasks import TASKS
from tokenprune.evals.tasks.base.question import Question
from tokenprune.strategies.pre_llm.vflowopt import VFlowOpt

BASE = VFlowOpt(keep_ratio=0.3)


@functools.cache
def deep_llava() -> Any:
    return FAMILY.build()


def write_scenes(folder: Path, n: int = 4) -> None:
    """Write `n` images with one expression each in split val, and one in split test."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations, refs = [], [], []
    for i in range(n + 1):
        x, y = 5 + 9 * i % 40, 3 + (7 * i + i // 200) % 25  # all images differ
        sample_image(box=(x, y, x + 12, y + 9)).save(folder / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 60, "height": 40})
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": [x, y, 12, 9]})
        refs.append(ref(i, "test" if i == n else "val", i, i, [f"{7 * i:02d} {3 * i + 5:02d}"]))
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (folder / "refs(tiny).json").write_text(json.dumps(refs))


def scenes(folder: Path, n: int = 4) -> Sequence[Question]:
    write_scenes(folder, n)
    return TASKS["rec"].load(folder, "val")


def searched(questions: Sequence[Question], output: Path, trials: int = 3, **options: Any) -> dict[str, Any]:
    return optimize(deep_llava(), tiny_processor(), questions, output, **{"base": BASE, "trials": trials, **options})

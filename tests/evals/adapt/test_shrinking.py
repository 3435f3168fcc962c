"""Training on smaller images: the batches are those that a processor makes of smaller images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.files.evals import sample_image, saved, tiny_processor
from helpers.files.search import Deep, deep_llava
from torch.nn.functional import interpolate

from tokenprune.errors import SettingError
from tokenprune.evals.adapt.adapt import adapt
from tokenprune.evals.adapt.examples import by_image, labelled
from tokenprune.evals.adapt.rows import Collator, Row
from tokenprune.evals.adapt.shrinking import Shrinking, applied
from tokenprune.evals.run.downsample import at_size, full_grid, shrunk_grid
from tokenprune.evals.run.questions import load_questions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images with one question each, and the first with a second question."""
    folder, lines = tmp_path_factory.mktemp("own"), []
    for number in (0, *range(8)):
        sample_image(box=(number, number, number + 20, number + 15)).save(folder / f"{number}.png")
        lines.append(
            {"image": f"{number}.png", "question": f"1{len(lines)}", "answer": "07 08" if number % 2 else "05"}
        )
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.mark.parametrize("per_image", [1, 8])
@pytest.mark.parametrize("with_cls", [False, True])
def test_batches_are_those_of_smaller_images(per_image: int, with_cls: bool, data: Path) -> None:
    model: Any = Deep("llava-clip", "clip").build("sdpa")
    processor: Any = tiny_processor()
    if with_cls:
        model.config.vision_feature_select_strategy = processor.vision_feature_select_strategy = "full"
    rows = [Row(tuple(labelled(group))) for group in by_image(load_questions(data)[:4], per_image)]
    batch, seen = Collator(processor, torch.float32)(rows), list[dict[str, Any]]()
    whole = model(**batch).loss
    with applied(model, Shrinking(processor, 1.0), 0.3):
        hook = model.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
        shrunk = model(**batch).loss
        hook.remove()
    grid = shrunk_grid(processor, 0.3)
    assert grid < full_grid(processor)
    height, width = (n * processor.patch_size for n in grid)
    expected = Collator(at_size(processor, height, width), torch.float32)(rows)
    pixels = interpolate(batch["pixel_values"], (height, width), mode="bicubic", antialias=True)
    assert seen[0].keys() == expected.keys()
    for name, value in (expected | {"pixel_values": pixels}).items():
        torch.testing.assert_close(seen[0][name], value, msg=name)
    assert shrunk.isfinite()
    assert shrunk != whole
    assert model(**batch).loss == whole


def test_rows_with_different_numbers_of_images_are_refused(data: Path) -> None:
    model, processor = deep_llava(), tiny_processor()
    batch = Collator(processor, torch.float32)([Row(tuple(labelled(load_questions(data)[1:2])))] * 2)
    batch["input_ids"][0][batch["input_ids"][0] == model.config.image_token_id] = 1
    with applied(model, Shrinking(processor, 0.3), 0.3), pytest.raises(SettingError, match="downsample: rows"):
        model(**batch)


@pytest.mark.parametrize("labels", [True, False])
def test_a_training(labels: bool, data: Path, tmp_path: Path) -> None:
    few: dict[str, Any] = {"steps": 12, "batch": 4, "learning_rate": 2e-2, "keep_ratio": 0.2, "whole": 0.0}
    folder = saved(deep_llava(), tmp_path / "model")
    found = adapt(folder, data=data, output=tmp_path / "out", strategy="downsample", labels=labels, **few)
    losses = [loss for _, loss in found.losses]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    identity = json.loads((tmp_path / "out" / "adapt.json").read_text())
    assert identity["strategy"] == "downsample"
    with pytest.raises(SettingError, match="holds another training, with strategy="):
        adapt(folder, data=data, output=tmp_path / "out", strategy="fopru", labels=labels, **few)

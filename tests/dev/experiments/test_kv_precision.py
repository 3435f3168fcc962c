"""Keep ratios against the precision of the KV cache: even the first answer token reads the quantised cache; tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.files.rows import row
from PIL import Image
from transformers import cache_utils

import tokenprune
from tokenprune import Mosaic
from tokenprune.evals.dev.experiments.kv_precision import PRECISIONS, main, reading_cache
from tokenprune.evals.dev.figures import kv_precision as drawn
from tokenprune.evals.dev.tables.accuracy.kv_precision import report
from tokenprune.evals.models.bundled import MODEL, SCENES
from tokenprune.evals.models.cache import cache_in
from tokenprune.evals.models.loading import load_model
from tokenprune.evals.report.table import NOTHING
from tokenprune.evals.storage.results import TaskResult
from tokenprune.evals.storage.results_io import read

N_LAYERS = 3
needs_fp8 = pytest.mark.skipif(not hasattr(cache_utils, "Fp8QuantizedLayer"), reason="came with transformers 5.2x")
STEPS: dict[str, Any] = {
    "do_sample": False,
    "max_new_tokens": 3,
    "return_dict_in_generate": True,
    "output_logits": True,
}


@pytest.fixture(scope="module")
def asked() -> tuple[Any, dict[str, Any]]:
    """Return the bundled model's first layers, and two questions of different lengths about one image."""
    model, processor = load_model(str(MODEL), "float32")
    model.model.language_model.layers = model.model.language_model.layers[:N_LAYERS]
    model.config.text_config.num_hidden_layers = N_LAYERS
    image = Image.open(SCENES / "images" / "val_000001.webp")
    texts = [f"USER: <image>\n{text} ASSISTANT:" for text in ("what is on the left?", "is there a dog?")]
    return model, processor(images=[image, image], text=texts, padding=True, return_tensors="pt")


@pytest.mark.parametrize("keep_ratio", [0.25, 1.0])
def test_a_plain_cache_changes_nothing(asked: tuple[Any, dict[str, Any]], keep_ratio: float) -> None:
    model, inputs = asked
    assert not inputs["attention_mask"].all()
    with tokenprune.patch(model, Mosaic(keep_ratio=keep_ratio)):
        whole = model.generate(**inputs, **STEPS)
        with reading_cache(model, {}):
            read_back = model.generate(**inputs, **STEPS)
    assert torch.equal(read_back.sequences, whole.sequences)
    torch.testing.assert_close(torch.stack(read_back.logits), torch.stack(whole.logits), atol=1e-4, rtol=1e-4)
    assert "generate" not in vars(model)


def rounded(states: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (states / scale).to(torch.float8_e4m3fn).float() * scale


def round_all(layer: Any) -> None:
    """Round the contents of a cache layer to fp8, and later tokens with the same scales."""
    held = (layer.keys, layer.values)
    scales = [states.abs().amax() / 448 for states in held]
    for states, scale in zip(held, scales, strict=True):
        states.copy_(rounded(states, scale))
    update = layer.update
    layer.update = lambda keys, values, **more: update(rounded(keys, scales[0]), rounded(values, scales[1]), **more)


@needs_fp8
def test_the_first_token_reads_what_is_quantised(asked: tuple[Any, dict[str, Any]]) -> None:
    """The result is the same as if the prompt's keys and values were rounded by hand before its last token is read."""
    model, inputs = asked
    inputs = {name: tensor[:1] for name, tensor in inputs.items()}
    assert inputs["attention_mask"].all()  # because a plain forward would number padding too
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with tokenprune.patch(model, Mosaic(keep_ratio=0.25)):
        with reading_cache(model, PRECISIONS[8]):
            found = model.generate(**inputs, **STEPS)
        whole = model.generate(**inputs, **STEPS)
        with torch.no_grad():
            before = {name: tensor[:, :-1] for name, tensor in text.items()}
            name, cache = cache_in(model(**before, pixel_values=inputs["pixel_values"], use_cache=True))
        for layer in cache.layers:
            round_all(layer)
        by_hand = model.generate(**text, **STEPS, **{name: cache})
    torch.testing.assert_close(found.logits[0], by_hand.logits[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found.logits[0], whole.logits[0], atol=1e-3)


def run(folder: Path, bits: list[int], *more: str) -> list[TaskResult]:
    chosen = ["--bits", *map(str, bits), "--keep-ratio", "0.25", "--dtype", "float32", "--limit", "2"]
    main([*chosen, "--output", str(folder), "--table", str(folder / "rows.jsonl"), *more])
    return read([folder / "rows.jsonl"])


@needs_fp8
def test_a_run_of_two_precisions(tmp_path: Path) -> None:
    rows = run(tmp_path, [16, 8])
    assert [(row.strategy, row.keep_ratio, row.n) for row in rows if row.task == "rec"] == [
        ("unpruned, 16 bits", 1.0, 2),
        ("Mosaic, 16 bits", 0.25, 2),
        ("unpruned, 8 bits", 1.0, 2),
        ("Mosaic, 8 bits", 0.25, 2),
    ]
    sizes = {row.strategy: row.kv_cache_bytes for row in rows if row.task == "rec"}
    for name in ("unpruned", "Mosaic"):  # four bytes per number here, against one
        assert sizes[f"{name}, 8 bits"] == pytest.approx(sizes[f"{name}, 16 bits"] / 4, rel=0.001)
    answers = {path: path.read_bytes() for path in tmp_path.rglob("answers.jsonl")}
    assert len(answers) == 2
    assert [row.scores for row in run(tmp_path, [16, 8])] == [row.scores for row in rows]
    assert {path: path.read_bytes() for path in tmp_path.rglob("answers.jsonl")} == answers


@pytest.mark.usefixtures("quanto_in_python")
def test_the_prompt_is_quantised_and_the_newest_tokens_are_not(asked: tuple[Any, dict[str, Any]]) -> None:
    model, inputs = asked
    for bits in (4, 2):
        with tokenprune.patch(model, Mosaic(keep_ratio=0.25)), reading_cache(model, PRECISIONS[bits]):
            output = model.generate(**inputs, **STEPS, min_new_tokens=3)
        layer = cache_in(output)[1].layers[0]
        assert layer.keys.shape[2] == 3  # the last prompt token and two answer tokens
        _, _, n_prompt, _ = layer._quantized_keys.shape
        assert n_prompt == 64 + int((inputs["input_ids"][0] != model.config.image_token_id).sum()) - 1
        values = layer._quantized_keys.dequantize()[0, 0, -1]
        assert len(values.unique()) <= 2**bits


def of(bits: int, keep_ratio: float, scores: str, size: int) -> TaskResult:
    name = f"{'Mosaic' if keep_ratio < 1 else 'unpruned'}, {bits} bits"
    changes: dict[str, Any] = {"settings": {"kv_bits": bits}, "kv_cache_bytes": size}
    return row(name, "original", keep_ratio, {"val": [float(score) for score in scores]}, **changes)


def some() -> list[TaskResult]:
    return [
        of(8, 0.5, "1110", 500_000),
        of(8, 1.0, "1111", 1_000_000),
        of(16, 0.5, "1100", 1_000_000),
        of(16, 1.0, "1111", 2_000_000),
    ]


def test_the_tables() -> None:
    text = report(some())
    assert "| 100 % | 2.00 | 1.00 |\n| 50 % | 1.00 | 0.50 |" in text
    assert "| 50 % | 50.0 [15, 85] | 75.0 [30, 95] |" in text
    # Half of the whole cache: half of the tokens at 16 bits, and then all of them at 8. A quarter: one cell only.
    assert (
        f"| 1/2 | 50 % | 16 bits | 1.00 MB | 50.0 [15, 85] | {NOTHING} |\n|  | 100 % | 8 bits | 1.00 MB | 100.0" in text
    )
    assert "+50.0 [" in text
    assert f"| 1/4 | 50 % | 8 bits | 0.50 MB | 75.0 [30, 95] | {NOTHING} |" in text
    assert "| 50 % | 8 bits | +25.0 [" in text


def test_the_figure_has_a_line_for_each_precision() -> None:
    (axes,) = drawn.figure(some()).axes
    drawn_points = [np.asarray(line.get_xydata()).tolist() for line in axes.lines]
    assert drawn_points == [[[2.0, 100.0], [1.0, 50.0]], [[1.0, 100.0], [0.5, 75.0]]]

"""Unlimited-OCR: answer tokens see the whole prompt and a window of the answer, with and without padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.contract.oracle import assert_close, dropped_columns
from helpers.families import FAMILIES, Family
from torch import Tensor
from transformers import DynamicCache

import tokenprune
from tokenprune import Random
from tokenprune.adapters.families.unlimited_ocr import canvas_and_whole

WINDOW, STEPS = 3, 9


def short_window() -> Any:
    family: Any = type(FAMILIES["unlimited-ocr"])("unlimited-ocr-short")
    family.window = WINDOW
    return family


def expected(family: Family, model: Any, whole: dict[str, Any], dropped: Tensor, n_prompt: int) -> Tensor:
    """Return the logits of one uncached forward of the unpatched model, with masks made by hand."""
    length = whole["input_ids"].shape[1]
    place = torch.arange(length)
    age = place[:, None] - place
    seen = (age >= 0) & ((place < n_prompt) | (age < WINDOW))
    seen = seen & (whole["attention_mask"].bool() & ~dropped)[:, None]
    mask = (seen | torch.eye(length, dtype=torch.bool))[:, None]
    given = {**whole, "attention_mask": dict.fromkeys(("full_attention", "reference_sliding_attention"), mask)}
    with torch.no_grad():
        return model(**given, position_ids=family.position_ids(model, whole), use_cache=False).logits


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("images", [[1], [1, 2]])
def test_answers_longer_than_the_window(images: list[int], cache: str | None) -> None:
    family = short_window()
    model, inputs = family.build(), family.prompt(images)
    settings: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False, "cache_implementation": cache}
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.4)) as handle:
        out = model.generate(**inputs, **settings, return_dict_in_generate=True, output_logits=True)
    whole = family.continued(inputs, out.sequences[:, -STEPS:])
    dropped = dropped_columns(out.sequences, [handle.report])
    logits = expected(family, model, whole, dropped, inputs["input_ids"].shape[1])
    assert_close(torch.stack(out.logits, 1), logits[:, -STEPS - 1 : -1])
    everything = expected(family, model, whole, dropped, whole["input_ids"].shape[1])
    assert (everything - logits)[:, -1].abs().max() > 1e-2  # the window matters


def test_a_cache_that_was_not_told_the_length_of_the_prompt() -> None:
    family = short_window()
    model, inputs = family.build(), family.prompt([1, 2])
    cache, answers, logits = DynamicCache(config=model.config), inputs["input_ids"][:, :0], []
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.4)) as handle:
        for step in range(STEPS):
            whole = family.continued(inputs, answers)
            new = inputs if step == 0 else {"input_ids": answers[:, -1:]}
            ids = family.position_ids(model, whole)[:, -new["input_ids"].shape[1] :]
            out = model(**{**new, "attention_mask": whole["attention_mask"]}, position_ids=ids, cache=cache)
            logits.append(out.logits[:, -1])
            answers = torch.cat([answers, logits[-1][:, :90].argmax(-1, keepdim=True)], 1)
    whole = family.continued(inputs, answers)
    dropped = dropped_columns(whole["input_ids"], [handle.report])
    oracle = expected(family, model, whole, dropped, inputs["input_ids"].shape[1])
    assert_close(torch.stack(logits, 1), oracle[:, -STEPS - 1 : -1])


def test_grids_may_be_a_tensor() -> None:
    family = FAMILIES["unlimited-ocr"]
    model, inputs = family.build(), family.prompt([1, 2])
    with torch.no_grad(), tokenprune.patch(model, Random(keep_ratio=0.4)) as handle:
        logits, layouts = model(**inputs).logits, [image.grids for image in handle.report.images]
        assert torch.equal(model(**{**inputs, "patches_grid": torch.tensor(inputs["patches_grid"])}).logits, logits)
        assert [image.grids for image in handle.report.images] == layouts


def test_a_canvas_by_hand() -> None:
    """Two crops of 2 x 2 visual tokens side by side, and the whole image with 2 x 2."""
    layout = canvas_and_whole(1, 2, 2, 2)
    assert layout.grids == ((1, 2, 5), (1, 2, 3), (1, 1, 1))
    assert layout.tiles is not None
    assert layout.newlines is not None
    assert layout.tiles.tolist() == [0, 0, 1, 1, 1] * 2 + [2] * 7
    assert layout.newlines.nonzero()[:, 0].tolist() == [4, 9, 12, 15, 16]
    assert layout.n_tiles == 3
    alone = canvas_and_whole(0, 0, 2, 2)
    assert alone.grids == ((1, 2, 3), (1, 1, 1))
    assert alone.n_visual == 7

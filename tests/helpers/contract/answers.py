"""Comparing one answer of a patched model with the exact oracle."""

from typing import Any

import torch
from torch import Tensor

import tokenprune
from helpers.contract.oracle import assert_close, dropped_columns, oracle_logits
from helpers.tiny import prompt
from tokenprune import FoPru, Report

STEPS = 4
STRATEGY = FoPru(keep_ratio=0.25)


def answer(model: Any, inputs: dict[str, Any], **settings: Any) -> Any:
    """Return the output of `generate` for `STEPS` greedy tokens."""
    settings = {"max_new_tokens": STEPS, "do_sample": False, **settings}
    with torch.no_grad():
        return model.generate(**inputs, return_dict_in_generate=True, output_logits=True, **settings)


def oracle_of(model: Any, inputs: dict[str, Any], out: Any, report: Report) -> Tensor:
    """Return the unpatched `model`'s logits (batch, steps, vocabulary) for an answer, with what was dropped masked."""
    steps = len(out.logits)
    ids = out.sequences
    real = torch.cat([inputs["attention_mask"], torch.ones(len(ids), ids.shape[1] - inputs["input_ids"].shape[1])], 1)
    dropped = dropped_columns(ids, [report])
    assert dropped.any()
    return oracle_logits(model, ids, real.long(), inputs["pixel_values"], dropped)[:, -steps - 1 : -1]


def assert_answers(
    model: Any, unpatched: Any, images_per_row: list[int], strategy: tokenprune.Strategy = STRATEGY, **settings: Any
) -> Any:
    """Check that a patched answer of `model` has the oracle's logits on `unpatched`, the same model. Returns the
    answer.

    `model` may be a wrapper. It is patched only for this answer.
    """
    inputs = prompt(images_per_row)
    with tokenprune.patch(model, strategy) as handle:
        out = answer(model, inputs, **settings)
    assert handle.report.n_kept == strategy.budget(36) * sum(images_per_row)
    assert_close(torch.stack(out.logits, 1), oracle_of(unpatched, inputs, out, handle.report))
    return out


def n_logits(model: Any, inputs: dict[str, Any]) -> int:
    """Return the number of columns for which a plain forward has logits, which shows pruning."""
    with torch.no_grad():
        return model(**inputs).logits.shape[1]

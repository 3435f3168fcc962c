"""The exact oracle: dropping tokens under original position IDs equals masking them, with nothing dropped.

It recomputes a whole conversation in one uncached forward of the unpatched model, in which no query attends to a
dropped column.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tiny import IMAGE
from torch import Tensor

import tokenprune
from tokenprune.hooks import pruner_of

TOLERANCE = 2e-5  # float32; the tiny models give about 1e-6, and 1e-2 to 1 when something is wrong


def dropped_columns(ids: Tensor, reports: Iterable[tokenprune.Report]) -> Tensor:
    """(batch, length) bool: which columns of the whole conversation the reports' forwards dropped, in order."""
    dropped = ids == IMAGE
    for row in range(len(ids)):
        columns = dropped[row].nonzero()[:, 0]
        for image in (image for report in reports for image in report.images if image.row == row):
            dropped[row, columns[: image.n_visual][image.kept]] = False
            columns = columns[image.n_visual :]
        assert len(columns) == 0, "the reports do not cover the row's pictures"
    return dropped


def oracle_logits(
    model: Any, ids: Tensor, real: Tensor, pixels: Tensor | None, dropped: Tensor, position_ids: Tensor | None = None
) -> Tensor:
    """(batch, length, vocabulary) logits of the unpatched model with `dropped` columns masked out."""
    length = ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = causal & (real.bool() & ~dropped)[:, None, None]
    seen = seen | torch.eye(length, dtype=torch.bool)  # nothing reads those rows, and softmax needs one entry
    assert pruner_of(model) is None, "the oracle must not be pruned"
    if position_ids is None:
        position_ids = (real.long().cumsum(1) - 1).clamp(min=0)
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    with torch.no_grad():
        return model(
            input_ids=ids, pixel_values=pixels, attention_mask=mask, position_ids=position_ids, use_cache=False
        ).logits


def compact_ids(real: Tensor, dropped: Tensor) -> Tensor:
    """Position IDs that count what is left."""
    return ((real.bool() & ~dropped).long().cumsum(1) - 1).clamp(min=0)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    error = float((actual - expected).abs().max())
    assert error < TOLERANCE, f"logits differ by {error:.1e}"

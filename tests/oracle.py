"""The exact oracle: dropping tokens under original position IDs equals masking them, with nothing dropped.

`Family.oracle` recomputes a whole conversation in one uncached forward of the unpatched model, in which no query
attends to a dropped column.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from families import FAMILIES
from families.base import IMAGE, VIDEO
from torch import Tensor

import tokenprune
from tokenprune.hooks import pruner_of

TOLERANCE = 2e-5  # float32; the tiny models give about 1e-6, and 1e-2 to 1 when something is wrong
PLACEHOLDERS = {"image": IMAGE, "video": VIDEO}


def dropped_columns(ids: Tensor, reports: Iterable[tokenprune.Report]) -> Tensor:
    """(batch, length) bool: which columns of the whole conversation the reports' forwards dropped, in order."""
    dropped = torch.zeros_like(ids).bool()
    images = [image for report in reports for image in report.images]
    for modality, placeholder in PLACEHOLDERS.items():
        for row in range(len(ids)):
            columns = (ids[row] == placeholder).nonzero()[:, 0]
            dropped[row, columns] = True
            for image in images:
                if (image.row, image.modality) == (row, modality):
                    dropped[row, columns[: image.n_visual][image.kept]] = False
                    columns = columns[image.n_visual :]
            assert len(columns) == 0, f"the reports do not cover the {modality}s of row {row}"
    return dropped


def oracle_logits(
    model: Any, ids: Tensor, real: Tensor, pixels: Tensor | None, dropped: Tensor, position_ids: Tensor | None = None
) -> Tensor:
    """`Family.oracle` of a LLaVA, from the tensors of the whole conversation."""
    assert pruner_of(model) is None, "the oracle must not be pruned"
    inputs = {"input_ids": ids, "attention_mask": real, "pixel_values": pixels}
    return FAMILIES["llava-clip"].oracle(model, inputs, dropped, position_ids)


def compact_ids(real: Tensor, dropped: Tensor) -> Tensor:
    """Position IDs that count what is left."""
    return ((real.bool() & ~dropped).long().cumsum(1) - 1).clamp(min=0)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    error = float((actual - expected).abs().max())
    assert error < TOLERANCE, f"logits differ by {error:.1e}"

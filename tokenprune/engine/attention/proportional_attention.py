"""Proportional attention: the log of how many tokens a merged token stands for is added to the logits of its key.

This bias becomes part of the masks: of those over slots for all decoder layers, and of a stage's own for what was
merged there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tokenprune.engine.select import ImageSelection
from tokenprune.selection import Selection, StageReport
from tokenprune.sequence.packing import Packing


def entering_bias(chosen: Sequence[ImageSelection], packing: Packing) -> Float[Tensor, "batch kept"]:
    """The bias of every column that enters the language model; 0 for columns outside images."""
    size, device = (len(packing.columns), packing.n_columns), packing.columns.device
    bias = torch.zeros(size, dtype=torch.float32, device=device)
    for image in chosen:
        bias[image.row, image.columns[image.selection.kept]] = image.selection.sizes().log()
    return packing.gather_tokens(bias)


def stage_bias(
    chosen: Sequence[ImageSelection], reports: Sequence[Sequence[StageReport]], entering: Packing, packing: Packing
) -> Float[Tensor, "batch left"]:
    """What a stage adds to the bias of the columns that are left, for what it and the stages before it have merged.

    reports: what each of those stages did to every image.
    entering: the columns that entered the language model.
    packing: those of them that are left from the last of those stages on.
    """
    places, device = entering.places(), entering.columns.device
    bias = torch.zeros(entering.columns.shape, dtype=torch.float32, device=device)
    for i, image in enumerate(chosen):
        first = sizes = _of_all(image.selection, bias.new_ones(image.selection.n_visual))
        for stage in reports:
            kept, merged = stage[i].kept, stage[i].merged
            sizes = _of_all(Selection(kept, image.selection.n_visual, merged=merged, trusted=True), sizes)
        left = reports[-1][i].kept
        bias[image.row, places[image.row, image.columns[left]]] = (sizes[left] / first[left]).log()
    return packing.gather_tokens(bias)


def _of_all(selection: Selection, before: Float[Tensor, " visual"]) -> Float[Tensor, " visual"]:
    """The sizes of an image's visual tokens after a selection; 0 for those that it drops."""
    return torch.zeros_like(before).index_copy(0, selection.kept, selection.sizes(before))

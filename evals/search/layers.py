"""The change that each decoder layer makes to its input, as 1 - cosine: EfficientVLA's ranking of layers
(https://arxiv.org/abs/2506.10100), which PAR's skipping uses. Only images and questions are needed, no answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from tokenprune.adapters import adapter_for
from tokenprune.errors import PruningError, SettingError
from tokenprune.evals.tasks._base.question import Question
from tokenprune.strategies.par import ENDS
from tokenprune.zoom.prompts import encode_chat


@torch.inference_mode()
def layer_changes(model: Any, processor: Any, samples: Sequence[Question]) -> list[float]:
    """1 - cos(input, output) of every decoder layer of the unpruned model, the mean over a sample's tokens, and then
    over samples."""
    if not samples:
        raise SettingError("no samples, so there is nothing to measure the layers on. Ask for at least one.")
    layers = list(adapter_for(model).layers)
    totals = [0.0] * len(layers)
    with _changes(layers) as changes:
        for sample in samples:
            model(**encode_chat(processor, [sample.open_images()], [sample.text]).to(model.device, model.dtype))
            for number, change in enumerate(changes):
                if math.isnan(change):
                    raise PruningError(f"{sample.id}: layer {number} gives NaN. Load the model in another dtype.")
                totals[number] += change
    return [total / len(samples) for total in totals]


def least_changing(changes: Sequence[float], n_skipped: int) -> tuple[int, ...]:
    """The `n_skipped` layers that change least, ascending; never the first or last two. SettingError if there are not
    as many."""
    between = range(ENDS, len(changes) - ENDS)
    if not 0 <= n_skipped <= len(between):
        raise SettingError(
            f"{n_skipped} layers to skip of {len(changes)}, of which the first and last {ENDS} are never skipped; ask "
            f"for 0 to {len(between)}."
        )
    return tuple(sorted(sorted(between, key=lambda layer: changes[layer])[:n_skipped]))


@contextmanager
def _changes(layers: Sequence[Any]) -> Iterator[list[float]]:
    """Record how much each layer changed in the last forward of its model."""
    changes = [0.0] * len(layers)

    def after(number: int, module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        changes[number] = 1 - float(cosine_similarity(args[0].float(), output.float(), dim=-1).mean())

    hooks = [layer.register_forward_hook(partial(after, number)) for number, layer in enumerate(layers)]
    try:
        yield changes
    finally:
        for hook in hooks:
            hook.remove()

"""What decoder layers change: 1 - cosine of a layer's input and output, EfficientVLA's ranking of single layers
(https://arxiv.org/abs/2506.10100); and the angle by which a block of layers rotates the last token's state
(https://arxiv.org/abs/2403.17887). Only images and questions are needed, no answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import tokenprune
from tokenprune.adapters import adapter_for
from tokenprune.errors import PruningError, SettingError
from tokenprune.evals.search.calibration import check_not_empty, encode_each
from tokenprune.evals.tasks.base.question import Question
from tokenprune.strategies.in_llm.par import PAR
from tokenprune.strategy.skipping import ENDS


@torch.inference_mode()
def layer_changes(model: Any, processor: Any, questions: Sequence[Question]) -> list[float]:
    """1 - cos(input, output) of every decoder layer of the unpruned model, the mean over a prompt's tokens, and then
    over questions. Raises what `patch` raises for a model that PAR cannot prune."""
    check_not_empty(questions)
    layers = _skippable_layers(model)
    totals = [0.0] * len(layers)
    with _changes(layers) as changes:
        for question, inputs in encode_each(model, processor, questions):
            model(**inputs)
            for number, change in enumerate(changes):
                if math.isnan(change):
                    raise PruningError(f"{question.id}: layer {number} gives NaN. Load the model in another dtype.")
                totals[number] += change
    return [total / len(questions) for total in totals]


@torch.inference_mode()
def block_distances(model: Any, processor: Any, questions: Sequence[Question], n_skipped: int) -> list[float]:
    """For every block of `n_skipped` contiguous decoder layers, by its first layer: the angle between the states of the
    last token before and after the block in the unpruned model, as a share of a half turn, averaged over questions.
    Raises what `patch` raises for a model that PAR cannot prune."""
    check_not_empty(questions)
    layers = _skippable_layers(model)
    if not 0 < n_skipped <= len(layers):
        raise SettingError(f"a block of {n_skipped} of {len(layers)} layers; ask for 1 to {len(layers)}.")
    totals = torch.zeros(len(layers) - n_skipped + 1, dtype=torch.float64)
    with _last_states(layers) as states:
        for question, inputs in encode_each(model, processor, questions):
            model(**inputs)
            whole = torch.stack(states)
            cosines = cosine_similarity(whole[:-n_skipped], whole[n_skipped:], dim=-1).clamp(-1, 1)
            if bool(cosines.isnan().any()):
                raise PruningError(f"{question.id}: a layer gives NaN. Load the model in another dtype.")
            totals += cosines.arccos() / math.pi
    return (totals / len(questions)).tolist()


def block_to_skip(distances: Sequence[float], n_skipped: int) -> tuple[int, ...]:
    """The block of `n_skipped` layers with the least distance that includes none of the first or last two. SettingError
    if there is none."""
    starts = range(ENDS, len(distances) - ENDS)
    if not starts:
        raise SettingError(
            f"a block of {n_skipped} layers reaches into the first or last {ENDS}, which are never skipped; ask for"
            f" fewer."
        )
    first = min(starts, key=lambda start: distances[start])
    return tuple(range(first, first + n_skipped))


def layers_to_skip(changes: Sequence[float], n_skipped: int) -> tuple[int, ...]:
    """The `n_skipped` layers that change least, ascending; never the first or last two. SettingError if there are not
    as many."""
    between = range(ENDS, len(changes) - ENDS)
    if not 0 <= n_skipped <= len(between):
        raise SettingError(
            f"{n_skipped} layers to skip of {len(changes)}, of which the first and last {ENDS} are never skipped; ask "
            f"for 0 to {len(between)}."
        )
    return tuple(sorted(sorted(between, key=lambda layer: changes[layer])[:n_skipped]))


def _skippable_layers(model: Any) -> list[Any]:
    with tokenprune.patch(model, PAR(keep_ratio=0.5)):  # where it is refused, no layers can be skipped
        return list(adapter_for(model).layers)


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


@contextmanager
def _last_states(layers: Sequence[Any]) -> Iterator[list[Tensor]]:
    """Record the last token's state before each layer and after the last one, in the last forward of their model."""
    states: list[Tensor] = [torch.empty(0)] * (len(layers) + 1)

    def before(number: int, module: Any, args: tuple[Any, ...]) -> None:
        states[number] = args[0][0, -1].double().cpu()

    def after(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        states[-1] = output[0, -1].double().cpu()

    hooks = [layer.register_forward_pre_hook(partial(before, number)) for number, layer in enumerate(layers)]
    hooks.append(layers[-1].register_forward_hook(after))
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()

"""The ideal: the unpatched model on a prompt that already has only the kept number of visual tokens.

No pruning can be faster. The images are encoded in full, and then the language model gets the first visual tokens of
each, as many as the strategy keeps: which ones does not affect the time. For a strategy that prunes before the vision
tower, each image has only that many visual tokens to begin with. For one that prunes inside the language model or the
tower, the sequence is cut to its first tokens wherever the strategy has fewer left, with nothing selected or gathered
(ideal_tiles.py and ideal_rows.py, for the two kinds of towers). None of this needs an attention mask, so none is
passed on.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapters import adapter_for
from tokenprune.adapters.record import record_of
from tokenprune.adapters.towers.layers import BatchLayers
from tokenprune.evals.bench.ideal_rows import RowCuts
from tokenprune.evals.bench.ideal_tiles import TileCuts
from tokenprune.evals.bench.inputs.prompts import Inputs, features, n_visual
from tokenprune.evals.bench.position_ids import positions
from tokenprune.evals.bench.schedule import Schedule

#: The sequence axis of a layer's arguments; a mask's are its last two.
AXES = {"position_embeddings": -2, "position_ids": -1, "cache_position": -1}


def prefill(model: Any, inputs: Inputs, schedule: Schedule) -> Any:
    """Run the prompt with `schedule.entering` visual tokens per row, as if its image had no more."""
    token, n_kept = model.config.image_token_id, schedule.entering
    inputs = encoded(model, inputs, schedule)
    visual = inputs["input_ids"] == token
    ids = inputs["input_ids"][~visual | (visual.cumsum(1) <= n_kept)].view(len(visual), -1)
    embeds = model.get_input_embeddings()(ids)
    embeds[ids == token] = features(model, inputs)[:, :n_kept].flatten(0, 1).to(embeds.dtype)
    ones, numbers = torch.ones_like(ids), positions(model, len(ids), 0, ids.shape[1])
    given = {"inputs_embeds": embeds, "attention_mask": ones, **numbers}
    text_inputs = record_of(model.config.model_type).text_inputs
    given |= text_inputs(adapter_for(model).language_model, ids.masked_fill(ids == token, 0))
    return model(**given, use_cache=True, logits_to_keep=1)


def encoded(model: Any, inputs: Inputs, schedule: Schedule) -> Inputs:
    """Return the prompt with images hardly larger than what enters the tower's first layer."""
    counts = [int(grid.prod()) for grid in inputs.get("image_grid_thw", ())]
    if not schedule.tower or not counts:
        return inputs
    merge, columns = model.config.vision_config.spatial_merge_size, ceil(schedule.tower[0] ** 0.5)
    rows = ceil(schedule.tower[0] / columns)
    if rows * columns >= n_visual(model, inputs):
        return inputs
    pixels = [image[: merge**2 * rows * columns] for image in inputs["pixel_values"].split(counts)]
    grids = inputs["image_grid_thw"].new_tensor([[1, merge * rows, merge * columns]] * len(counts))
    return {**inputs, "pixel_values": torch.cat(pixels), "image_grid_thw": grids}


@contextmanager
def narrowed(model: Any, inputs: Inputs, schedule: Schedule, n_text: int) -> Iterator[None]:
    """Cut the sequence of the layers of an unpatched `model` to what `schedule` leaves in them, plus `n_text` text
    tokens; passes over a single token are unchanged. `inputs`: the prompt whose images are encoded."""
    adapter = adapter_for(model)
    with ExitStack() as hooks:
        for layer, length in _shortened(adapter.layers, schedule.layers, n_text):
            hook = layer.register_forward_pre_hook(partial(_narrow, length), with_kwargs=True)
            hooks.callback(hook.remove)
        if schedule.tower and isinstance(layers := adapter.tower_layers, BatchLayers):
            hooks.enter_context(TileCuts(adapter, layers, schedule.tower).hooked())
        elif schedule.tower:
            hooks.enter_context(RowCuts(adapter, encoded(model, inputs, schedule), schedule.tower).hooked())
        yield


def _shortened(layers: Any, counts: Sequence[int], n_more: int) -> Iterator[tuple[nn.Module, int]]:
    """Yield the layers that see less than the first one, with the length of their sequence."""
    for layer, count in zip(layers, counts, strict=False):
        if count < counts[0]:
            yield layer, count + n_more


def _narrow(length: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    hidden, *rest = args
    if hidden.shape[1] == 1:
        return None
    mask = kwargs.get("attention_mask")
    shorter = {name: _cut(kwargs[name], axis, length) for name, axis in AXES.items() if kwargs.get(name) is not None}
    if isinstance(mask, Tensor):
        shorter["attention_mask"] = mask[..., :length, :length]
    return (_cut(hidden, 1, length).contiguous(), *rest), kwargs | shorter


def _cut(given: Any, axis: int, length: int) -> Any:
    if isinstance(given, tuple):
        return tuple(_cut(tensor, axis, length) for tensor in given)
    return given.narrow(axis, 0, min(length, given.shape[axis]))

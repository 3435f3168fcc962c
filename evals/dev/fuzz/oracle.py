"""The contract: dropping visual tokens equals masking them, at the position IDs that they would have.

An unpatched model with eager attention gets the same calls and drops nothing. Instead, its decoder layers do not attend
to what the strategy dropped before them, its encoder layers do not attend to what was dropped in the tower, embeddings
and hidden states are merged as reported, and skipped layers return their input.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from helpers.families.base import CACHE
from torch import Tensor, nn
from transformers import DynamicCache

from tokenprune import ImageReport
from tokenprune.evals.dev.fuzz.families import Family
from tokenprune.evals.dev.fuzz.modes import Chunk
from tokenprune.selection import Merge

CLOSED = torch.finfo(torch.float32).min


@dataclass
class Placed:
    """An image of a report, and the columns of its visual tokens in its call and in the whole conversation."""

    chunk: int
    row: int
    local: Tensor
    columns: Tensor
    image: ImageReport


def place(family: Family, chunks: list[Chunk], beams: int) -> list[Placed]:
    """Return where the images of all reports are. The first beam of a row stands for all of its beams."""
    result, start = [], 0
    for number, chunk in enumerate(chunks):
        images = [] if chunk.report is None else [image for image in chunk.report.images if image.row % beams == 0]
        for modality, token in family.placeholders:
            for row, ids in enumerate(chunk.ids):
                columns = (ids == token).nonzero()[:, 0]
                for image in images:
                    if (image.row // beams, image.modality) == (row, modality):
                        local, columns = columns[: image.n_visual], columns[image.n_visual :]
                        result.append(Placed(number, row, local, start + local, image))
                if chunk.report is not None and len(columns):
                    raise AssertionError(f"{len(columns)} {modality} tokens of row {row} are in no report")
        start += chunk.ids.shape[1]
    return sorted(result, key=lambda place: (place.chunk, place.row, int(place.local[0])))


def dropped_at(placed: list[Placed], shape: tuple[int, int], layer: int) -> Tensor:
    """Return which columns decoder layer `layer` does not get, as (batch, columns) bool."""
    dropped = torch.zeros(shape, dtype=torch.bool)
    for place in placed:
        kept = place.image.kept
        for stage in place.image.stages:
            if stage.layer <= layer:
                kept = stage.kept
        gone = torch.ones(len(place.columns), dtype=torch.bool)
        gone[kept] = False
        dropped[place.row, place.columns[gone]] = True
    return dropped


def compact(ids: Tensor, chunks: list[Chunk], dropped: Tensor) -> Tensor:
    """Return a conversation's position IDs (components, batch, columns) without the gaps that dropped columns leave.

    With one component, a column's ID is lower by the number of columns dropped before it. With three, if a row of
    a call loses any columns, those left are numbered one by one, and later calls continue after the last of them.
    """
    ids = ids.clone()
    if len(ids) == 1:
        return ids - (dropped.long().cumsum(1) - dropped.long())
    for row in range(ids.shape[1]):
        start, shift = 0, 0
        for chunk in chunks:
            columns = torch.arange(start, start + chunk.ids.shape[1])
            start += chunk.ids.shape[1]
            ids[:, row, columns] -= shift
            real = columns[chunk.real[row].bool()]
            if not dropped[row, columns].any():
                continue
            still = real[~dropped[row, real]]
            following = int(ids[:, row, real].max()) + 1
            first = int(ids[:, row, real].min())
            ids[:, row, still] = first + torch.arange(len(still))
            shift += following - (first + len(still))
    return ids


def merged(states: Tensor, kept: Tensor, merge: Merge) -> Tensor:
    """Return the states of an image's visual tokens after a merge. Dropped tokens keep theirs."""
    weights = torch.zeros(len(kept), len(states))
    weights.index_put_((merge.targets, merge.sources), merge.weights.float(), accumulate=True)
    replaced = merge.targets.unique()
    result = states.clone()
    result[kept[replaced]] = weights[replaced] @ states
    return result


class Replay:
    """Replays a conversation on the unpatched model."""

    def __init__(self, family: Family, chunks: list[Chunk], placed: list[Placed], ids: Tensor) -> None:
        self.family, self.chunks, self.placed, self.ids = family, chunks, placed, ids
        self.number = 0
        self.shape = (len(chunks[0].ids), sum(chunk.ids.shape[1] for chunk in chunks))
        twin = family.twin
        self.language_model = twin.get_decoder()
        skipped = {n for chunk in chunks if chunk.report is not None for n in chunk.report.skipped}
        self.layers: list[Any] = list(self.language_model.layers)
        self.hooks: list[Any] = [self.language_model.register_forward_pre_hook(self.enter, with_kwargs=True)]
        for number, layer in enumerate(self.layers):
            hook = partial(self.enter_layer, number, dropped_at(placed, self.shape, number))
            self.hooks.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
        if any(place.image.in_tower for place in placed):
            self._close_in_tower(twin.model.vision_tower)
        self.skipped = [self.layers[number] for number in skipped]
        for layer in self.skipped:
            layer.forward = lambda hidden, *args, **kwargs: hidden

    def _close_in_tower(self, tower: Any) -> None:
        tower = getattr(tower, "vision_model", tower)
        encoder = tower.transformer if hasattr(tower, "transformer") else tower.encoder
        for number, layer in enumerate(getattr(encoder, "layers", None) or encoder.layer):
            hook = partial(self.enter_encoder_layer, number)
            self.hooks.append(layer.register_forward_pre_hook(hook, with_kwargs=True))

    @property
    def start(self) -> int:
        return sum(chunk.ids.shape[1] for chunk in self.chunks[: self.number])

    @property
    def position_ids(self) -> Tensor:
        ids = self.ids[..., self.start : self.start + self.chunks[self.number].ids.shape[1]]
        return ids[0] if len(ids) == 1 else ids

    @property
    def here(self) -> list[Placed]:
        return [place for place in self.placed if place.chunk == self.number]

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        new = {**kwargs, "position_ids": self.position_ids}
        if any(place.image.merged is not None for place in self.here):
            embeds = kwargs["inputs_embeds"].clone()
            for place in self.here:
                if place.image.merged is not None:
                    states = embeds[place.row, place.local]
                    embeds[place.row, place.local] = merged(states, place.image.kept, place.image.merged)
            new["inputs_embeds"] = embeds
        return args, new

    def enter_layer(self, number: int, dropped: Tensor, module: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden, *rest = args
        for place in self.here:
            for stage in place.image.stages:
                if stage.layer == number and stage.merged is not None:
                    hidden = hidden.clone()
                    hidden[place.row, place.local] = merged(hidden[place.row, place.local], stage.kept, stage.merged)
        mask, start, new = kwargs["attention_mask"], self.start, hidden.shape[1]
        closed = dropped[:, None, None, : start + new].expand(-1, 1, new, -1)
        itself = torch.arange(start + new)[None] == torch.arange(start, start + new)[:, None]
        mask = mask.expand(len(hidden), -1, -1, -1).masked_fill(closed & ~itself, CLOSED)
        return (hidden, *rest), {**kwargs, "attention_mask": mask.masked_fill(closed & itself, 0.0)}

    def enter_encoder_layer(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden, *rest = args
        closed = torch.zeros(hidden.shape[:2], dtype=torch.bool)
        # One row per image, after its prefix tokens; in Pixtral's tower, one row for the patches of all images.
        n_prefix = (closed.numel() - sum(place.image.n_visual for place in self.here)) // len(closed)
        start = 0
        for place in self.here:
            row, column = divmod(start, closed.shape[1] - n_prefix)
            start += place.image.n_visual
            own = closed[row, n_prefix + column :][: place.image.n_visual]
            for stage in place.image.in_tower:
                if stage.layer <= number:
                    gone = torch.ones(place.image.n_visual, dtype=torch.bool)
                    gone[stage.kept] = False
                    own |= gone
        named = signature(type(module).forward).bind(module, hidden, *rest, **kwargs).arguments
        others = {key: value for key, value in named.items() if key not in ("self", "hidden_states", "kwargs")}
        mask = others.pop("attention_mask", None)
        mask = torch.zeros(hidden.shape[1], hidden.shape[1]) if mask is None else mask
        mask = mask.expand(len(hidden), 1, -1, -1).masked_fill(closed[:, None, None], CLOSED)
        return (hidden,), {**others, **named.get("kwargs", {}), "attention_mask": mask}

    @torch.no_grad()
    def logits(self) -> list[Tensor]:
        """Return the logits (batch, new columns, vocabulary) of every call."""
        cache, result = DynamicCache(), []
        try:
            for number, chunk in enumerate(self.chunks):
                self.number = number
                types = (
                    self.family.tiny.token_types(chunk.ids)
                    if chunk.tensors or not result or chunk.ids.shape[1] > 1
                    else {}
                )
                # Qwen-VL cannot number later turns on its own.
                given = {"position_ids": self.position_ids} if self.family.kind.mrope else {}
                out = self.family.twin(
                    input_ids=chunk.ids,
                    attention_mask=chunk.whole,
                    **chunk.tensors,
                    **types,
                    **given,
                    **{CACHE: cache},
                    use_cache=True,
                )
                result.append(out.logits)
        finally:
            while self.hooks:
                self.hooks.pop().remove()
            for layer in self.skipped:
                del layer.forward
        return result


def worst_difference(chunks: list[Chunk], expected: list[Tensor], dropped: Tensor, only_last: bool = False) -> float:
    """Return the largest difference between two logits in the columns that are left after all layers.

    Rows with fewer columns than others are aligned at their end. Padding there stays.
    """
    worst, start = 0.0, 0
    for number, (chunk, logits) in enumerate(zip(chunks, expected, strict=True)):
        gone = dropped[:, start : start + chunk.ids.shape[1]]
        start += chunk.ids.shape[1]
        if only_last and number < len(chunks) - 1:
            continue
        assert chunk.logits is not None
        for row, actual in enumerate(chunk.logits):
            still = (chunk.real[row].bool() & ~gone[row]).nonzero()[:, 0]
            if not len(still):
                continue
            if not chunk.every:
                still, actual = still[-1:], actual[-1:]
            elif not gone.any() and chunk.logits.shape[1] == chunk.ids.shape[1]:
                actual = actual[still]
            else:
                end = len(actual) - int(chunk.real[row].flip(0).int().argmax())
                actual = actual[end - len(still) : end]
            if actual.shape != logits[row, still].shape:
                raise AssertionError(f"row {row} has {len(actual)} logits where {len(still)} columns are left")
            difference = (actual - logits[row, still]).abs().max()
            worst = max(worst, float(difference)) if difference.isfinite() else float("inf")
    return worst

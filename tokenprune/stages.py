"""In-LLM pruning: decoder layers that see fewer tokens than the layers before them.

Every layer is called with masks and rotary embeddings made for the sequence that entered the language model. A staged
layer has them cut to its own tokens here, in prefill, and its mask cut to its own cache slots in every later call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.calls import PerThread
from tokenprune.errors import PruningError, SettingError, UnsupportedError
from tokenprune.ledger import Ledger, span
from tokenprune.masks import Mask
from tokenprune.report import ImageReport
from tokenprune.selecting import Chosen
from tokenprune.sequence import Packing, pack
from tokenprune.stage_slots import StageSlots
from tokenprune.strategy import Stage, Strategy
from tokenprune.text_attention import TextAttention, TextRecorder


@dataclass(eq=False)
class StageRun:
    """One stage's layers during one forward: what they hold of a cache with `n_slots` in its first layer, and which
    tokens of this forward they get."""

    past: StageSlots
    packing: Packing
    cache: Any
    n_slots: int
    _cut: tuple[Any, Any, dict[str, Any]] | None = None

    @cached_property
    def drops(self) -> bool:
        return self.packing.columns.shape[1] < self.packing.n_columns or not bool(self.packing.valid.all())

    @cached_property
    def held(self) -> StageSlots:
        """What the stage's layers hold after the forward."""
        return self.past.followed_by(self.n_slots + self.packing.columns, self.packing.valid)

    def cut(self, kwargs: dict[str, Any], like: Tensor) -> dict[str, Any]:
        """A layer's arguments, cut to the stage. All its layers are called with the same objects: cut once."""
        mask, rotary = kwargs.get("attention_mask"), kwargs.get("position_embeddings")
        if self._cut is None or self._cut[0] is not mask or self._cut[1] is not rotary:
            new: dict[str, Any] = {"attention_mask": self._mask(mask, like)}
            if self.drops and rotary is not None:
                new["position_embeddings"] = tuple(self._take(part) for part in rotary)
            if self.drops and isinstance(kwargs.get("position_ids"), Tensor):
                new["position_ids"] = self.packing.take_ids(kwargs["position_ids"])
            self._cut = (mask, rotary, new)
        return {**kwargs, **self._cut[2]}

    def _take(self, tensor: Tensor) -> Tensor:
        """The stage's tokens of a (..., batch or 1, length, width) tensor."""
        return self.packing.take(tensor) if tensor.ndim == 3 else torch.stack([self._take(part) for part in tensor])

    def _mask(self, mask: Any, like: Tensor) -> Tensor | None:
        """The stage's attention mask, from the one for the sequence that entered: over queries and keys for a 4-D
        mask, over keys for a 2-D one. None stays None where every query may see all that came before it.

        Raises PruningError for any other kind of mask.
        """
        held = self.held
        if mask is None:
            return None if held.whole else self._causal(like)
        if not isinstance(mask, Tensor) or mask.ndim not in (2, 4):
            raise PruningError(
                f"an attention mask of type {type(mask).__name__} cannot be cut for in-LLM pruning. Load the model "
                f'with attn_implementation="sdpa".'
            )
        keys = mask.expand(len(held.slots), *mask.shape[1:])
        if mask.ndim == 2:
            return keys.gather(1, held.slots) * held.valid
        queries = self.packing.columns[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[-1])
        rows = keys.gather(2, queries) if self.drops else keys
        index = held.slots[:, None, None].expand(-1, rows.shape[1], rows.shape[2], -1)
        cut = _masked(rows.gather(3, index), ~held.valid[:, None, None])
        n_keys, _ = span(self.cache, self.past.slots.shape[1], self.past.layer, self.packing.columns.shape[1])
        free = cut.new_zeros(*cut.shape[:-1], n_keys - cut.shape[-1])  # a static cache answers with all its room
        return torch.cat([cut, _masked(free, torch.ones_like(free).bool())], -1) if free.shape[-1] else cut

    def _causal(self, like: Tensor) -> Tensor:
        """Nothing was masked, but the stage has holes: an additive mask over its own tokens."""
        held, new = self.held, (self.n_slots + self.packing.columns)[:, :, None]
        itself = held.slots[:, None] == new  # holes see themselves: nothing reads them, and softmax needs one entry
        seen = (held.slots[:, None] <= new) & held.valid[:, None] | itself & ~self.packing.valid[:, :, None]
        return _masked(like.new_zeros(seen.shape), ~seen)[:, None]


def checked_stages(strategy: Strategy, adapter: ModelAdapter) -> tuple[Stage, ...]:
    """The strategy's stages. Raises SettingError unless they ascend through the layers of the language model, and
    UnsupportedError if it has layers whose caches hold a window only."""
    n_layers = len(adapter.layers)
    stages = strategy.stages(n_layers)
    if stages and adapter.decoder.layers.sliding:
        raise UnsupportedError(
            f"{type(strategy).__name__} prunes inside the language model, and that of {adapter.description} has "
            f"sliding-window layers, where only pruning before it is supported. Use a strategy without stages."
        )
    layers = [stage.layer for stage in stages]
    if layers != sorted(set(layers)) or not all(0 < layer < n_layers for layer in layers):
        raise SettingError(
            f"{type(strategy).__name__}: stages at layers {layers} do not ascend within 1..{n_layers - 1}, the decoder "
            f"layers of this model behind the first."
        )
    return stages


def _masked(mask: Tensor, where: Tensor) -> Tensor:
    return mask & ~where if mask.dtype == torch.bool else mask.masked_fill(where, torch.finfo(mask.dtype).min)


def places_of(packing: Packing) -> Int[Tensor, "batch columns"]:
    """Where each column that a packing holds stands in it; 0 for those that it does not."""
    columns, valid = packing.columns, packing.valid
    place = torch.zeros(len(columns), packing.n_columns, dtype=torch.long, device=columns.device)
    order = torch.arange(columns.shape[1], device=columns.device).expand_as(columns)
    # Holes stand at column 0, which may be a real token's too: that one is to win.
    return place.scatter_reduce_(1, columns, order * valid, "amax")


class StagedForward(PerThread):
    """The forward that is in progress.

    runs: of the stages that are decided already.
    past: what each stage holds before.
    kept: by stage, what is left of each image from it on; of the last forward, once this one has ended.
    """

    def __init__(self) -> None:
        self.kept: list[list[Tensor]] = []
        self.clear()

    def clear(self) -> None:
        self.runs: list[StageRun] = []
        self.past: list[StageSlots] = []
        self.chosen: Sequence[Chosen] = ()
        self.entering: Packing | None = None
        self.cache: Any = None
        self.n_slots = 0


class StageHooks:
    """The stages of one patched model through one forward; hooks.py puts `before_layer` on its decoder layers."""

    def __init__(self, strategy: Strategy, adapter: ModelAdapter) -> None:
        self.strategy, self.adapter = strategy, adapter
        self.stages = checked_stages(strategy, adapter)
        self.recorder = TextRecorder()
        self._now = StagedForward()

    @property
    def rescores(self) -> bool:
        """Whether stages rank tokens by what the text attends to."""
        return "text_attention" in self.strategy.needs

    def prune(self, chosen: Sequence[Chosen]) -> bool:
        """Whether any stage drops anything of these images."""
        budgets = [(stage.budget(image.selection.n_visual), image) for stage in self.stages for image in chosen]
        return any(budget < len(image.selection.kept) for budget, image in budgets)

    def begin(
        self,
        cache: Any,
        ledger: Ledger | None,
        past_valid: Bool[Tensor, "batch slots"],
        entering: Packing,
        chosen: Sequence[Chosen],
    ) -> None:
        """A forward enters the language model with the columns `entering`, behind a cache of whose slots `past_valid`
        may be attended to and which `ledger` describes."""
        if self.stages and torch.is_grad_enabled() and self.adapter.recomputes_hooks:
            raise PruningError(
                f"{type(self.strategy).__name__} prunes inside the language model, and the activation checkpointing of "
                f"this transformers runs decoder layers again in the backward pass, when their tokens are forgotten. "
                f"Switch it off, use a newer transformers, or prune before the language model."
            )
        now = self._now
        now.past = self._continued(ledger, past_valid)
        now.cache, now.n_slots = cache, past_valid.shape[1]
        now.chosen, now.entering, now.runs, now.kept = chosen, entering, [], []
        if not self.rescores:
            for stage in self.stages:
                self._add([image.left(stage.budget(image.selection.n_visual)) for image in chosen])

    def resume(self, cache: Any, ledger: Ledger | None, n_slots: int, embeds: Tensor, mask: Mask) -> None:
        """A forward without pictures goes on behind a pruned cache: staged layers get all of its tokens."""
        if ledger is None or not ledger.stages or (mask is None and all(stage.whole for stage in ledger.stages)):
            return
        batch, n_new, _ = embeds.shape
        new = torch.arange(n_new, device=embeds.device).expand(batch, -1)
        packing = Packing(new, torch.ones_like(new).bool(), n_new)
        past = self._continued(ledger, ledger.slots(n_slots).valid)
        self._now.runs = [StageRun(had, packing, cache, n_slots) for had in past]

    def _continued(self, ledger: Ledger | None, past_valid: Bool[Tensor, "batch slots"]) -> list[StageSlots]:
        """What each stage holds before the forward."""
        n_slots = past_valid.shape[1]
        if ledger is None or not ledger.stages:
            return [StageSlots.all(stage.layer, n_slots, past_valid) for stage in self.stages]
        if [stage.layer for stage in ledger.stages] != [stage.layer for stage in self.stages]:
            raise PruningError(
                "this cache was pruned in other layers than the strategy prunes in. Go on with the strategy that it "
                "was made with, or start again from an empty cache."
            )
        return [stage.grown(ledger.columns.shape[1], n_slots) for stage in ledger.stages]

    def _add(self, kept: list[Tensor]) -> None:
        """Decides the next stage: it gets what is `kept` of each image, and everything else that entered."""
        entering = self._now.entering
        assert entering is not None
        place, keep = places_of(entering), entering.valid.clone()
        for image, left in zip(self._now.chosen, kept, strict=True):
            keep[image.row, place[image.row, image.columns[image.selection.kept]]] = False
            keep[image.row, place[image.row, image.columns[left]]] = True
        right_padded = bool(entering.valid[:, 0].all()) and not bool(entering.valid[:, -1].all())
        past = self._now.past[len(self._now.runs)]
        self._now.runs.append(StageRun(past, pack(keep, right_padded), self._now.cache, self._now.n_slots))
        self._now.kept.append(kept)

    def _rescored(self, number: int, hidden: Float[Tensor, "batch length width"]) -> list[Tensor]:
        """What is left of each image from a stage on, by the strategy's new scores."""
        assert self._now.entering is not None
        stage, before = self.stages[number], self._now.entering if number == 0 else self._now.runs[number - 1].packing
        queries, keys = self.adapter.text_heads(self.recorder.take(stage.layer - 1))
        scale, kept = self.adapter.text_attention_scale(stage.layer - 1), []
        # Columns of the stage before, through the sequence that entered for the second stage and on.
        place = places_of(before) if number == 0 else places_of(before).gather(1, places_of(self._now.entering))
        for i, image in enumerate(self._now.chosen):
            row, had = image.row, image.selection.kept if number == 0 else self._now.kept[number - 1][i]
            visual = place[row, image.columns[had]]
            attention = TextAttention(queries[row], keys[row], scale, before.valid[row], visual)
            scores = self.strategy.rescore(stage, hidden[row, visual], attention)
            best = scores.argsort(descending=True, stable=True)[: stage.budget(image.selection.n_visual)]
            kept.append(had[best.sort().values])
        return kept

    def leaving(self, entering: Packing) -> Packing:
        """Which columns come out of the last layer, of those that entered the language model."""
        if not self._now.runs:
            return entering
        last = self._now.runs[-1].packing
        return Packing(entering.columns.gather(1, last.columns), last.valid, entering.n_columns)

    def held(self) -> tuple[StageSlots, ...]:
        """What each stage holds after the forward."""
        return tuple(run.held for run in self._now.runs)

    def reported(self, images: Sequence[ImageReport]) -> list[ImageReport]:
        """The reports of this forward's images, with what each stage left of them."""
        left = zip(*self._now.kept, strict=True) if self._now.kept else [()] * len(images)
        layers = [stage.layer for stage in self.stages] if self._now.kept else []
        return [
            replace(image, stages=tuple(zip(layers, kept, strict=True)))
            for image, kept in zip(images, left, strict=True)
        ]

    def end(self) -> None:
        self._now.clear()
        self.recorder.forget()

    def before_layer(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The arguments of a decoder layer, cut to its stage; None if they may stay."""
        number = sum(stage.layer <= layer for stage in self.stages) - 1
        if number < 0 or not (self._now.runs or self._now.entering):
            return None
        hidden, *rest = args
        if len(self._now.runs) == number:  # the stage begins here, and waited for the layer before
            self._add(self._rescored(number, hidden))
        run, before = self._now.runs[number], self._now.runs[number - 1] if number else None
        if run.drops and layer == self.stages[number].layer:
            hidden = _narrowed(hidden, before, run)
        return (hidden, *rest), run.cut(kwargs, hidden)


def _narrowed(hidden: Tensor, before: StageRun | None, run: StageRun) -> Tensor:
    """The hidden states of a stage's tokens, from those of the stage before it (None: of all that entered)."""
    if before is None or not before.drops:
        return run.packing.take(hidden)
    index = places_of(before.packing).gather(1, run.packing.columns)
    return Packing(index, run.packing.valid, hidden.shape[1]).take(hidden)

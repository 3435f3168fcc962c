"""In-LLM pruning: decoder layers that see fewer tokens than the layers before them.

A stage is decided on entry to its first layer, from the hidden states there and from what the layer before attended to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tokenprune.adapters.base import ModelAdapter
from tokenprune.engine.cache import Ledger
from tokenprune.engine.call import uncompiled
from tokenprune.engine.select import Chosen, checked_stage_selection, with_merged
from tokenprune.engine.skipping import checked_skips
from tokenprune.engine.stages.forward import StagedForward
from tokenprune.engine.stages.run import StageRun, places_of
from tokenprune.engine.stages.slots import StageSlots
from tokenprune.errors import PruningError, SettingError, UnsupportedError
from tokenprune.report import ImageReport, StageReport
from tokenprune.selection import Selection
from tokenprune.sequence.packing import Packing, identity_packing, pack
from tokenprune.sequence.prompt import PromptTokens
from tokenprune.strategy import Stage, StagedStrategy, Strategy
from tokenprune.tokens.text_attention import TextAttention, TextRecorder
from tokenprune.tokens.visual import Entered, StageTokens


def checked_stages(strategy: Strategy, adapter: ModelAdapter) -> tuple[Stage, ...]:
    """The strategy's stages. Raises SettingError unless they ascend through the layers of the language model, and
    UnsupportedError if it has layers whose caches hold a window only."""
    n_layers = len(adapter.layers)
    stages = strategy.stages(n_layers) if isinstance(strategy, StagedStrategy) else ()
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


class StageHooks:
    """The stages of one patched model, and the layers it skips, through one forward; layers.py asks `before_layer`."""

    def __init__(self, strategy: Strategy, adapter: ModelAdapter) -> None:
        self.strategy, self.adapter = strategy, adapter
        self.stages = checked_stages(strategy, adapter)
        self.skipped = checked_skips(strategy, adapter, self.read)
        self.recorder = TextRecorder()
        self.cutting: list[None] = []  # one for each forward of any thread that cuts layers that are given no mask
        self._now = StagedForward()

    @property
    def read(self) -> tuple[int, ...]:
        """The decoder layers whose attention stages look at."""
        return tuple(stage.layer - 1 for stage in self.stages) if self.reads_attention else ()

    @property
    def layers(self) -> list[int]:
        """The decoder layers that `before_layer` is to be asked about."""
        if not self.stages:
            return []
        staged = range(self.stages[0].layer, len(self.adapter.layers))
        return [0, *staged] if self.reads_attention else list(staged)

    @property
    def reads_attention(self) -> bool:
        """Whether stages look at what the layers before them attended to."""
        return "text_attention" in self.strategy.needs

    def prune(self, chosen: Sequence[Chosen]) -> bool:
        """Whether any stage may drop anything of these images."""
        selections = [image.selection for image in chosen]
        return any(
            stage.at_most or stage.budget(selection.n_visual) < len(selection.kept)
            for stage in self.stages
            for selection in selections
        )

    def begin(
        self,
        cache: Any,
        ledger: Ledger | None,
        past_valid: Bool[Tensor, "batch slots"],
        entering: Packing,
        chosen: Sequence[Chosen],
        new: PromptTokens,
    ) -> None:
        """A forward enters the language model with the columns `entering` of the `new` ones, behind a cache of whose
        slots `past_valid` may be attended to and which `ledger` describes."""
        if not self.stages:
            return
        if torch.is_grad_enabled() and self.adapter.recomputes_hooks:
            raise PruningError(
                f"{type(self.strategy).__name__} prunes inside the language model, and the activation checkpointing of "
                f"this transformers runs decoder layers again in the backward pass, when their tokens are forgotten. "
                f"Switch it off, use a newer transformers, or prune before the language model."
            )
        self._cut()
        now = self._now
        now.past = self._continued(ledger, past_valid)
        now.cache, now.n_slots = cache, past_valid.shape[1]
        now.chosen, now.entering = chosen, entering
        if self.reads_attention:
            self.recorder.listen()
            now.text = [new.text_after(image.row, image.last) for image in chosen]

    def resume(self, cache: Any, ledger: Ledger | None, n_slots: int, embeds: Tensor) -> None:
        """A forward without pictures goes on behind a pruned cache: staged layers get all of its tokens."""
        if ledger is None or not ledger.stages:
            return
        self._check_stages(ledger)
        batch, n_new, _ = embeds.shape

        def runs() -> list[StageRun]:
            packing = identity_packing(batch, n_new, embeds.device)
            return [StageRun(had, packing, cache, n_slots) for had in self._grown(ledger, n_slots)]

        self._now.resumed = runs
        if not all(stage.whole for stage in ledger.stages):
            self._cut()

    def _cut(self) -> None:
        """From here to the end of the forward, layers that are given no mask are to be asked about too."""
        self._now.cuts = True
        self.cutting.append(None)

    def _check_stages(self, ledger: Ledger) -> None:
        """Raises PruningError for a cache that was pruned in other layers."""
        if [stage.layer for stage in ledger.stages] != [stage.layer for stage in self.stages]:
            raise PruningError(
                "this cache was pruned in other layers than the strategy prunes in. Go on with the strategy that it "
                "was made with, or start again from an empty cache."
            )

    def _continued(self, ledger: Ledger | None, past_valid: Bool[Tensor, "batch slots"]) -> list[StageSlots]:
        """What each stage holds before the forward."""
        if ledger is not None and ledger.stages:
            self._check_stages(ledger)
            return self._grown(ledger, past_valid.shape[1])
        holes = past_valid.shape[1] > 0 and not bool(past_valid.all())
        return [StageSlots.all(stage.layer, past_valid, whole=not holes) for stage in self.stages]

    def _grown(self, ledger: Ledger, n_slots: int) -> list[StageSlots]:
        """What each stage holds of a cache that has grown to `n_slots` since its ledger was written."""
        return [stage.grown(ledger.columns.shape[1], n_slots) for stage in ledger.stages]

    def _begin_stage(self, hidden: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """Decides the next stage: it gets what the strategy leaves of each image, and everything else that entered.

        hidden: of the stage before. Returns it with what is merged into tokens that are left.
        """
        now, number = self._now, len(self._now.runs)
        assert now.entering is not None
        stage, entered = self.stages[number], places_of(now.entering)
        before = now.runs[-1].packing if now.runs else now.entering
        # Where every column of the call stands in the stage before.
        places = places_of(before).gather(1, entered) if now.runs else entered
        reports, merges = [], []
        keep, counts = now.entering.valid.clone(), list(now.entering.counts)
        for i, (image, tokens) in enumerate(self._tokens(stage, hidden, before, places)):
            assert isinstance(self.strategy, StagedStrategy)
            selection = checked_stage_selection(self.strategy, stage, tokens)
            reports.append(report_of(stage, tokens, selection))
            merges.append((image.row, places[image.row, image.columns[tokens.left]], selection))
            keep[image.row, entered[image.row, image.columns[image.selection.kept]]] = False
            keep[image.row, entered[image.row, image.columns[reports[i].kept]]] = True
            counts[image.row] -= len(image.selection.kept) - len(reports[i].kept)
        packing = pack(keep, counts, now.entering.holes and now.entering.right_padded)
        now.runs.append(StageRun(now.past[number], packing, now.cache, now.n_slots))
        now.done.append(reports)
        if len(now.runs) == len(self.stages):
            now.first = None
        return with_merged(hidden, merges)

    def _tokens(
        self,
        stage: Stage,
        hidden: Float[Tensor, "batch length width"],
        before: Packing,
        places: Int[Tensor, "batch columns"],
    ) -> Iterator[tuple[Chosen, StageTokens]]:
        """Every image, and what the strategy may look at of it on entry to a stage."""
        now = self._now
        read = self._attention(stage.layer - 1, before) if self.reads_attention else None
        for i, image in enumerate(now.chosen):
            row, last = image.row, now.done[-1][i] if now.done else image.selection
            visual = places[row, image.columns[last.kept]]
            scores = None if last.scores is None else last.scores[last.kept]
            tokens = StageTokens(hidden[row, visual], last.kept, image.layout, scores)
            if read is not None and now.first is not None and now.entering is not None:
                text, entered = now.text[i], places_of(now.entering)[row]
                kept = image.columns[image.selection.kept]
                prompt = Entered(now.first[row, entered[kept]], now.first[row, entered[text]])
                tokens = replace(tokens, text_attention=read(row, visual, places[row, text]), prompt=prompt)
            yield image, tokens

    def _attention(self, layer: int, before: Packing) -> Callable[[int, Tensor, Tensor], TextAttention]:
        """How a row's attention in a decoder layer is read, given where its visual tokens and its text stand there."""
        now, call = self._now, self.recorder.take(layer)
        queries, keys = self.adapter.text_heads(call)
        scale, mask = self.adapter.text_attention_scale(layer), call["attention"].get("attention_mask")
        n_past = now.runs[-1].past.slots.shape[1] if now.runs else now.n_slots

        def read(row: int, visual: Tensor, text: Tensor) -> TextAttention:
            seen = None
            if isinstance(mask, Tensor) and mask.ndim == 4:  # over the cache's slots, and a static one's free room
                own = mask[min(row, len(mask) - 1), 0, :, n_past : n_past + queries.shape[2]]
                seen = own if own.dtype == torch.bool else own == 0
            return TextAttention(queries[row], keys[row], scale, before.valid[row], visual, text, seen)

        return read

    def leaving(self, entering: Packing) -> Packing:
        """Which columns come out of the last layer, of those that entered the language model."""
        if not self._now.runs:
            return entering
        last = self._now.runs[-1].packing
        return replace(last, columns=entering.columns.gather(1, last.columns), n_columns=entering.n_columns)

    def held(self) -> tuple[StageSlots, ...]:
        """What each stage holds after the forward."""
        return tuple(run.held for run in self._now.runs)

    def reported(self, images: Sequence[ImageReport]) -> list[ImageReport]:
        """The reports of this forward's images, with what each stage did to them."""
        done = zip(*self._now.done, strict=True) if self._now.done else [()] * len(images)
        return [replace(image, stages=stages) for image, stages in zip(images, done, strict=True)]

    @uncompiled
    def inner(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of the model's `inner_features`, for what the last stage so far has left."""
        if not self._now.runs:
            return arguments
        return self.adapter.prune_inner_features(arguments, self._now.runs[-1].packing)

    def end(self) -> None:
        if self._now.cuts:
            self.cutting.pop()
        self._now.clear()
        self.recorder.forget()

    @uncompiled
    def before_layer(self, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The arguments of a decoder layer, cut to its stage; None if they may stay, as they may without a mask as
        long as nothing is `cutting`."""
        now = self._now
        if now.resumed is not None and (now.cuts or kwargs.get("attention_mask") is not None):
            now.runs, now.resumed = now.resumed(), None
        if not now.runs and now.entering is None:
            return None
        number = sum(stage.layer <= layer for stage in self.stages) - 1
        if layer == 0 and self.reads_attention:
            now.first = args[0]
        if number < 0:
            return None
        hidden, *rest = args
        if len(now.runs) == number:
            hidden = self._begin_stage(hidden)
        run, before = now.runs[number], now.runs[number - 1] if number else None
        if run.drops and layer == self.stages[number].layer:
            hidden = _narrowed(hidden, before, run)
        new = kwargs if layer in self.skipped else run.cut(kwargs, hidden, layer)
        return None if hidden is args[0] and new is kwargs else ((hidden, *rest), new)


def report_of(stage: Stage, tokens: StageTokens, selection: Selection) -> StageReport:
    """What a stage did, from a selection over the tokens that were left before it."""
    kept, scores, merged = tokens.left[selection.kept], selection.scores, selection.merged
    if scores is not None:
        scores = scores.new_full((tokens.n_visual,), torch.nan).index_copy(0, tokens.left, scores)
    if merged is not None:
        merged = merged.of_whole(tokens.left, torch.arange(len(kept), device=kept.device))
    return StageReport(stage.layer, kept, scores, merged)


def _narrowed(hidden: Tensor, before: StageRun | None, run: StageRun) -> Tensor:
    """The hidden states of a stage's tokens, from those of the stage before it (None: of all that entered)."""
    if before is None or not before.drops:
        return run.packing.gather_tokens(hidden)
    index = places_of(before.packing).gather(1, run.packing.columns)
    return replace(run.packing, columns=index, n_columns=hidden.shape[1]).gather_tokens(hidden)

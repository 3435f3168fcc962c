"""Prunes inside the language model: later decoder layers see fewer tokens than earlier ones.

A stage is decided on entry to its first layer, from the hidden states there and from the attention of the layer before
or of the one about to be entered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tokenprune.adapters.base import ModelAdapter
from tokenprune.adapters.conventions import hidden_states_first
from tokenprune.engine.attention import stage_bias
from tokenprune.engine.cache.index import CacheIndex
from tokenprune.engine.cache.pruned import is_static
from tokenprune.engine.cache.stage_slots import StageSlots
from tokenprune.engine.call import CallContext, Incoming
from tokenprune.engine.patch import ForwardOverride, MethodOverride, Register, dynamo_disabled
from tokenprune.engine.select import ImageSelection, explained_nan, merge_features
from tokenprune.engine.stages.capture import TextCapture, attention_reader, forward_replaced
from tokenprune.engine.stages.forward import StagedForward, StagedPrompt, report_of
from tokenprune.engine.stages.plan import check_runs_once, checked_stage_selection, checked_stages
from tokenprune.engine.stages.run import StageRun, text_places
from tokenprune.sequence.packing import Packing, PromptTokens, identity_packing, pack
from tokenprune.strategy import Stage, StagedStrategy
from tokenprune.strategy.staged import valid_skips
from tokenprune.tokens.stages import StageTokens


class StagePruning:
    """The stages of one patched model.

    layers: the first decoder layer of each stage.
    active_forwards: one entry per forward, of any thread, in which layers that get no mask may need their arguments
        changed; `StagedLayer` reads it in every decode step.
    """

    def __init__(self, strategy: StagedStrategy, adapter: ModelAdapter, context: CallContext) -> None:
        self.strategy, self.adapter = strategy, adapter
        self.skipped = valid_skips(strategy, len(adapter.layers))
        self.stages = checked_stages(strategy, adapter)
        self.layers = tuple(stage.layer for stage in self.stages)
        self.active_forwards: list[None] = []
        self.reads_attention = bool(self.stages) and "text_attention" in strategy.needs
        self._staged: dict[int, nn.Module] = {}
        self.capture = TextCapture(adapter, self.stages if self.reads_attention else (), context, self.active_forwards)
        self._context = context

    def register(self, register: Register) -> list[nn.Module]:
        """Register the hooks; return the modules that expose attention."""
        if (name := self.adapter.inner_features) is not None:
            register(InnerFeatures(self.adapter.language_model, name, self).install())
        staged = range(self.stages[0].layer, len(self.adapter.layers))
        self._staged = {number: self.adapter.layers[number] for number in staged}
        for number in [0, *staged] if self.reads_attention else staged:
            register(StagedLayer(self.adapter.layers[number], self, number).install())
        return self.capture.register(register)

    def may_drop(self, chosen: Sequence[ImageSelection]) -> bool:
        """Whether any stage may drop tokens of these images."""
        return any(
            stage.at_most or stage.budget(image.encoded.n_visual) < len(image.selection.kept)
            for stage in self.stages
            for image in chosen
        )

    def begin(
        self,
        incoming: Incoming,
        past_valid: Bool[Tensor, "batch slots"],
        packing: Packing,
        chosen: Sequence[ImageSelection],
        prompt: PromptTokens,
    ) -> StagedForward:
        """Begin a forward in which the columns of `packing`, a part of the prompt's, enter the language model.

        past_valid: which slots of the cache may be attended to.
        """
        if torch.is_grad_enabled():
            check_runs_once(self.strategy, self.adapter, self._staged)
        in_prompt, text, labels = None, [], self._context.arguments.labels
        if self.reads_attention:
            if labels is not None and labels.shape == prompt.real.shape:  # others do not belong to these tokens
                prompt = prompt.without_answers(labels)
                in_prompt = prompt.real
            text = [prompt.text_after(image.row, image.last) for image in chosen]
        entry = StagedPrompt(packing, chosen, in_prompt, text, self._slots_before(incoming.index, past_valid))
        return self._activate(StagedForward(self.layers, incoming.cache, past_valid.shape[1], entry=entry))

    def resume(self, incoming: Incoming, embeds: Float[Tensor, "batch length width"]) -> StagedForward | None:
        """Begin a forward without images that continues a pruned cache: staged layers get all of its tokens. None if
        the cache was not pruned in stages."""
        index = incoming.index
        if index is None or not index.stages:
            return None
        now = StagedForward(self.layers, incoming.cache, incoming.n_slots, continues=index, embeds=embeds)
        room = self.adapter.decoder.runs_flash and is_static(incoming.cache)
        if room or not all(stage.has_no_holes for stage in index.stages):
            self._activate(now)
        return now

    def end(self, now: StagedForward) -> None:
        """End a forward."""
        if now.active:
            self.active_forwards.pop()

    @dynamo_disabled
    def inner_arguments(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of the model's `inner_features`, cut to what the last decided stage has left."""
        forward = self._context.forward
        if forward is None or forward.stages is None or not forward.stages.runs:
            return arguments
        return self.adapter.prune_inner_features(arguments, forward.stages.runs[-1].packing)

    @dynamo_disabled
    def before_layer(
        self, layer: int, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The arguments of a decoder layer for the tokens of its stage, given its forward and the arguments that it was
        called with; None if they need no change."""
        forward = self._context.forward
        now = None if forward is None else forward.stages
        if now is None:
            return None
        if now.continues is not None and (now.active or kwargs.get("attention_mask") is not None):
            self._make_runs(now)
        args, kwargs = hidden_states_first(args, kwargs)
        if layer == 0 and now.entry is not None and self.reads_attention:
            now.entry.hidden = args[0]
        number = sum(stage.layer <= layer for stage in self.stages) - 1
        if number < 0 or (now.entry is None and not now.runs):
            return None
        hidden, *rest = args
        if len(now.runs) <= number:
            undecided = self.layers[len(now.runs)]
            if layer != undecided:
                raise forward_replaced(undecided)

            def enter() -> Any:
                before = now.runs[-1].gather_arguments(kwargs, hidden, layer) if now.runs else kwargs
                return original(*args, **before)

            hidden = self._decide(now, hidden, enter)
        new = kwargs if layer in self.skipped else now.runs[number].gather_arguments(kwargs, hidden, layer)
        return None if hidden is args[0] and new is kwargs else ((hidden, *rest), new)

    def _activate(self, now: StagedForward) -> StagedForward:
        now.active = True
        self.active_forwards.append(None)
        return now

    def _make_runs(self, now: StagedForward) -> None:
        assert now.continues is not None
        assert now.embeds is not None
        batch, n_new, _ = now.embeds.shape
        packing = identity_packing(batch, n_new, now.embeds.device)
        slots = now.continues.stages_at(now.n_slots)
        flash = self.adapter.decoder.runs_flash
        now.runs = [StageRun(past, packing, now.cache, now.n_slots, flash=flash) for past in slots]
        now.continues = None

    def _slots_before(self, index: CacheIndex | None, past_valid: Bool[Tensor, "batch slots"]) -> list[StageSlots]:
        """The slots that each stage holds before the forward."""
        if index is not None and index.stages:
            return index.stages_at(past_valid.shape[1])
        holes = past_valid.shape[1] > 0 and not bool(past_valid.all())
        return [StageSlots.all(stage.layer, past_valid, has_no_holes=not holes) for stage in self.stages]

    def _decide(
        self, now: StagedForward, hidden: Float[Tensor, "batch length width"], enter: Callable[[], Any]
    ) -> Float[Tensor, "batch left width"]:
        """Decide the next stage: it gets what the strategy keeps of each image, and everything else that entered.

        hidden: the hidden states of the stage before. Returns those of this one, with dropped tokens merged into kept
        ones.
        enter: runs the stage's first layer on `hidden`.
        """
        assert now.entry is not None
        number, entry = len(now.runs), now.entry
        stage, entered = self.stages[number], entry.packing.places()
        before = now.runs[-1].packing if now.runs else entry.packing
        # The place of every column of the call in the stage before.
        places = before.places().gather(1, entered) if now.runs else entered
        reports, merges = [], []
        keep, counts = entry.packing.valid.clone(), list(entry.packing.counts)
        for i, (image, left, visual, tokens) in enumerate(self._tokens(now, stage, hidden, before, places, enter)):
            with explained_nan(self.strategy, f"image {i}", tokens.features):
                selection = checked_stage_selection(self.strategy, stage, tokens)
            merges.append((image.row, visual, selection))
            reports.append(report_of(stage, left, image.selection.n_visual, selection.to(left.device)))
            keep[image.row, entered[image.row, image.columns[image.selection.kept]]] = False
            keep[image.row, entered[image.row, image.columns[reports[i].kept]]] = True
            counts[image.row] -= len(image.selection.kept) - len(reports[i].kept)
        packing = pack(keep, counts, entry.packing.trailing)
        now.reports.append(reports)
        biased = self.strategy.biases_attention
        bias = stage_bias(entry.chosen, now.reports, entry.packing, packing) if biased else None
        run = StageRun(entry.past[number], packing, now.cache, now.n_slots, bias, self.adapter.decoder.runs_flash)
        now.runs.append(run)
        if len(now.runs) == len(self.stages):
            entry.hidden = None
        merged = merge_features(hidden, merges)
        return run.gather_hidden(merged, now.runs[-2] if number else None) if run.drops else merged

    def _tokens(
        self,
        now: StagedForward,
        stage: Stage,
        hidden: Float[Tensor, "batch length width"],
        before: Packing,
        places: Int[Tensor, "batch columns"],
        enter: Callable[[], Any],
    ) -> Iterator[tuple[ImageSelection, Int[Tensor, " left"], Int[Tensor, " left"], StageTokens]]:
        """For every image: the image, the indices of its tokens that enter a stage, their places in `hidden`, and these
        tokens, on the device of `hidden`. With `device_map`, the tokens entered on another device."""
        entry, device = now.entry, hidden.device
        assert entry is not None
        read, packings = None, (entry.packing, *([before] if now.runs else []))
        if self.reads_attention:
            if entry.hidden is None:
                raise forward_replaced(0)
            n_past, valid = now.runs[-1].past.slots.shape[1] if now.runs else now.n_slots, before.valid
            if entry.in_prompt is not None:
                entering = entry.in_prompt.gather(1, entry.packing.columns)
                valid = valid & (entering.gather(1, before.columns) if now.runs else entering)
            if stage.looks_ahead:
                call = self.capture.look_ahead(now, stage.layer, valid, enter)
            else:
                call = self.capture.take(now.captured, stage.read_layer)
            read = attention_reader(self.adapter.layers[stage.read_layer], call, n_past, valid, device)
        for i, image in enumerate(entry.chosen):
            row, last = image.row, now.reports[-1][i] if now.reports else image.selection
            visual = places[row, image.columns[last.kept]].to(device)
            scores = None if last.scores is None else last.scores[last.kept].to(device)
            left = last.kept if image.shrunk is None else torch.searchsorted(image.shrunk.kept.to(last.kept), last.kept)
            tokens = StageTokens(hidden[row, visual], left.to(device), image.encoded, scores)
            if read is not None and entry.hidden is not None:
                text = text_places(packings, row, entry.text[i]).to(device)
                prompt = partial(entry.first_inputs, entry.hidden[row], i, device)
                tokens = replace(tokens, text_attention=read(row, visual, text), prompt=prompt, text=hidden[row, text])
            yield image, last.kept, visual, tokens


class StagedLayer(ForwardOverride):
    """A decoder layer whose arguments are cut to its stage's tokens. Its forward is overridden rather than hooked,
    because this costs less in a decode step, which calls every layer for a single token."""

    def __init__(self, layer: nn.Module, stages: StagePruning, number: int) -> None:
        super().__init__(layer)
        self.stages, self._number = stages, number

    def override(self, *args: Any, **kwargs: Any) -> Any:
        if self.stages.active_forwards or kwargs.get("attention_mask") is not None:
            changed = self.stages.before_layer(self._number, self.original, args, kwargs)
            args, kwargs = changed or (args, kwargs)
        return self.original(*args, **kwargs)


class InnerFeatures(MethodOverride):
    """A method of the language model that adds features to visual tokens between decoder layers: fewer are left after
    an in-LLM stage."""

    def __init__(self, language_model: nn.Module, name: str, stages: StagePruning) -> None:
        super().__init__(language_model, name)
        self.stages = stages

    def override(self, *args: Any, **kwargs: Any) -> Any:
        return self.original(*self.stages.inner_arguments(args), **kwargs)
